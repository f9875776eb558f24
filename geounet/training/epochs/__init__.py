"""A step, the epochs, and what is kept of them."""
