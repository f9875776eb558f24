"""Networks that learn: what from, for how long, and the folder in which a run ends."""

from .batches import Batches, Chips, Epochs, to_tensors
from .data import PairSource, Source, types_of
from .datasets import ChipDataModule, ChipDataset
from .folder import MODEL, RECORD
from .folds import CrossValidation, cross_validate
from .options import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling, checked
from .parallel import run_or_help
from .planning import Plan
from .result import Run
from .run import train
from .settling import planned
from .task import Epoch, Task

__all__ = [
    "MODEL", "RECORD", "Augmentation", "Batches", "Card", "ChipDataModule", "ChipDataset", "Chips", "CrossValidation", "Epoch", "Epochs", "Fitting", "Inference", "Loss",
    "Network", "PairSource", "Plan", "Run", "Sampling", "Source", "Task", "checked", "cross_validate", "planned", "run_or_help", "to_tensors", "train", "types_of",
]  # fmt: skip
