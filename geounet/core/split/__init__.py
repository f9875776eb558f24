"""Cut the world into train, validation and test without leaking."""

from .assign import assign, folds, roles, search
from .blocks import Blocks, BlockSplit

__all__ = ["BlockSplit", "Blocks", "assign", "folds", "roles", "search"]
