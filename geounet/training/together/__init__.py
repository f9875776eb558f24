"""Several processes that share a training."""
