"""What a config leaves open, chosen from the data and the machine."""
