"""Networks that learn: what from, for how long, and the folder in which a run ends."""

from .epochs.task import Epoch, Task
from .folds import CrossValidation, cross_validate
from .options import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling, checked
from .outcome.folder import MODEL, RECORD
from .outcome.result import Run
from .plan.planning import Plan
from .plan.settling import planned
from .run import train
from .source.batches import Batches, Chips, Epochs, to_tensors
from .source.data import PairSource, Source, types_of
from .source.datasets import ChipDataModule, ChipDataset
from .together.parallel import run_or_help

__all__ = [
    "MODEL", "RECORD", "Augmentation", "Batches", "Card", "ChipDataModule", "ChipDataset", "Chips", "CrossValidation", "Epoch", "Epochs", "Fitting", "Inference", "Loss",
    "Network", "PairSource", "Plan", "Run", "Sampling", "Source", "Task", "checked", "cross_validate", "planned", "run_or_help", "to_tensors", "train", "types_of",
]  # fmt: skip
