"""Networks that learn: what from, for how long, and the folder in which a run ends."""

from .data import Batches, Chips, Epochs, PairSource, Source, to_tensors, types_of
from .datasets import ChipDataModule, ChipDataset
from .folder import MODEL, RECORD
from .options import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling, checked
from .run import Run, train
from .task import Epoch, Task

__all__ = [
    "MODEL", "RECORD", "Augmentation", "Batches", "Card", "ChipDataModule", "ChipDataset", "Chips", "Epoch", "Epochs", "Fitting", "Inference", "Loss",
    "Network", "PairSource", "Run", "Sampling", "Source", "Task", "checked", "to_tensors", "train", "types_of",
]  # fmt: skip
