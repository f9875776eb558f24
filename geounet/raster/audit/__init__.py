"""Which scenes share ground, and whether that ground is in two splits."""

from .check import audit
from .leaks import Leaks, Overlap

__all__ = ["Leaks", "Overlap", "audit"]
