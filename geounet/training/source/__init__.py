"""Where training images and masks come from."""
