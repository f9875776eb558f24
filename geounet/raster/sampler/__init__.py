"""Plan the training windows, read them ahead with dask, and stack them into batches."""

from .cache import cached
from .disk import DiskStore
from .pairs import Batch, Pair, Sample, batched
from .plan import plan_grid, plan_random, plan_shares
from .read import read_batch, read_batches
from .stores import MemoryStore, Store
from .survey import Survey, survey

__all__ = [
    "Batch", "DiskStore", "MemoryStore", "Pair", "Sample", "Store", "Survey", "batched", "cached", "plan_grid",
    "plan_random", "plan_shares", "read_batch", "read_batches", "survey",
]  # fmt: skip
