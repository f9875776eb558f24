"""Networks on tensors without a place: layers, losses, augmentations, model files, and how to run them here."""
