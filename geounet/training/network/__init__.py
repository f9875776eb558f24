"""What learns, made from the sections of a config and what the data are like."""
