"""Look for faults in training data before time is spent on them."""

from .examination import examine
from .findings import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "examine"]
