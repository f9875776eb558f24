"""The loop over epochs, run by Lightning without its files, bars and tips."""

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping

from ..options import Fitting
from ..source.batches import Batches
from .checkpoint import CheckpointFile, Checkpoints
from .compiling import check_compiler
from .logs import Board, History, Report, check_tensorboard
from .task import Progress, Task

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed",
}  # fmt: skip
"""What Lightning calls them; fp16 scales the loss, so that small gradients are not lost."""


def fit(
    task: Task,
    batches: Batches,
    chips: Batches,
    device: torch.device,
    precision: str,
    progress: Progress | None,
    folder: Path | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Run the epochs, without Lightning's files, bars and tips; logs go to `folder`, where there is one.

    After each epoch all that the next ones depend on is kept in the file `checkpoint`; if it is there already, the
    epochs go on from it, and end with the very weights that they would have had uninterrupted.
    """
    fitting = task.fitting
    with _quiet(), _switches(), _interruptible():
        trainer = lightning.Trainer(
            max_epochs=fitting.epochs, accelerator=device.type, **task.team.strategy(device, task.segmenter),
            precision=PRECISIONS[precision], callbacks=_callbacks(fitting, progress, folder, checkpoint), logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, accumulate_grad_batches=fitting.accumulate,
            gradient_clip_val=fitting.clip or None, deterministic="warn", benchmark=False,
            plugins=[CheckpointFile()],
        )  # fmt: skip
        trainer.fit(task, batches, chips, ckpt_path=checkpoint if checkpoint and checkpoint.exists() else None)
    task.to("cpu")


def rehearse(fitting: Fitting, device: torch.device) -> None:
    """Find out, before anything is read, whether what training needs beside torch is there.

    Raises
    ------
    ConfigError
        TensorBoard is asked for and not installed.
    DeviceError
        Compiling is asked for and no compiler works.
    """
    if fitting.tensorboard:
        check_tensorboard()
    if fitting.compile:
        check_compiler(device)


def _callbacks(
    fitting: Fitting, progress: Progress | None, folder: Path | None, checkpoint: Path | None
) -> list[lightning.Callback]:
    callbacks: list[lightning.Callback] = []
    if folder is not None:
        callbacks += [History(folder)] + [Board(folder)] * fitting.tensorboard
    if progress:
        callbacks.append(Report(progress))
    if fitting.patience is not None:
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=fitting.patience))
    if checkpoint is not None:
        callbacks.append(Checkpoints(checkpoint))
    return callbacks


@contextmanager
def _switches() -> Iterator[None]:
    """Leave torch's choice of algorithms as it was, which Lightning sets for the whole process."""
    variable = "CUBLAS_WORKSPACE_CONFIG"
    workspace, benchmark = os.environ.get(variable), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    # new memory would be filled with NaN before it is written, which takes a twentieth of the time of a small network
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
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
