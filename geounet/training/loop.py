"""The loop over epochs, run by Lightning without its files, bars and tips."""

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping

from .data import Batches
from .task import Epoch, Progress, Task


class _Report(lightning.Callback):
    """Tells the caller what an epoch brought."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        assert isinstance(task, Task)
        if task.history:
            scores = task.history[-1]
            best = task.best_epoch == scores["epoch"]
            self._progress(Epoch(int(scores["epoch"]), int(trainer.max_epochs or 0), scores, best))


def fit(
    task: Task, batches: Batches, chips: Batches, device: torch.device, precision: str, progress: Progress | None
) -> None:
    """Run the epochs, without Lightning's files, bars and tips."""
    fitting = task.fitting
    callbacks: list[lightning.Callback] = [_Report(progress)] if progress else []
    if fitting.patience is not None:
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=fitting.patience))
    with _quiet(), _switches(), _interruptible():
        trainer = lightning.Trainer(
            max_epochs=fitting.epochs, accelerator=device.type, devices=1 if device.index is None else [device.index],
            precision="bf16-mixed" if precision == "bf16" else "32-true", callbacks=callbacks, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, gradient_clip_val=1.0, deterministic="warn", benchmark=False,
        )  # fmt: skip
        trainer.fit(task, batches, chips)
    task.to("cpu")


@contextmanager
def _switches() -> Iterator[None]:
    """Leave torch's choice of algorithms as it was, which Lightning sets for the whole process."""
    variable = "CUBLAS_WORKSPACE_CONFIG"
    workspace, benchmark = os.environ.get(variable), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        os.environ.pop(variable, None)
        if workspace is not None:
            os.environ[variable] = workspace


@contextmanager
def _interruptible() -> Iterator[None]:
    """Give back the Ctrl-C that Lightning turns into an exit with status 1, and goes deaf to."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice, and its notes on hardware, to itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
