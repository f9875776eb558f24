"""Numbers and plans: no files, no torch."""
