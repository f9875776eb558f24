"""What is written down while epochs run, so that it is there whatever ends them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning

from ...errors import ConfigError
from ..outcome.folder import HISTORY, LOGS, write_history
from .task import Epoch, Progress, Task


def check_tensorboard() -> None:
    """Refuse to write for a TensorBoard that is not installed.

    Raises
    ------
    ConfigError
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"training.tensorboard needs the package tensorboard, which cannot be imported ({error}): "
            "pip install 'geounet[tensorboard]', or leave it out; history.csv has the scores of each epoch too."
        ) from error


class Report(lightning.Callback):
    """Tells the caller what an epoch brought."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        """Tell it."""
        assert isinstance(task, Task)
        if task.history:
            scores = task.history[-1]
            best = task.best_epoch == scores["epoch"]
            self._progress(Epoch(int(scores["epoch"]), int(trainer.max_epochs or 0), scores, best))


class History(lightning.Callback):
    """Writes the scores of the epochs so far, whole at any time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HISTORY

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        """Write one epoch more."""
        assert isinstance(task, Task)
        if task.history and trainer.is_global_zero:
            write_history(self._path, task.history)


class Board(lightning.Callback):
    """Writes the scores of each epoch, and the learning rate of each step, as TensorBoard reads them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / LOGS
        self._writer: Any = None
        self._steps = 0

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Open the file; what an earlier process wrote of later steps than this one begins at is not shown."""
        from torch.utils.tensorboard import SummaryWriter

        self._steps = trainer.global_step
        if trainer.is_global_zero:
            self._writer = SummaryWriter(self._folder, purge_step=self._steps + 1 if self._steps else None)

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, _: lightning.LightningModule, optimizer: Any
    ) -> None:
        """Write the rate that the step is made with."""
        if self._writer:
            self._writer.add_scalar(
                "learning_rate", max(group["lr"] for group in optimizer.param_groups), trainer.global_step + 1
            )

    def on_train_epoch_end(self, _: lightning.Trainer, task: lightning.LightningModule) -> None:
        """Write the scores, so that they can be seen at once."""
        assert isinstance(task, Task)
        if self._writer and task.history:
            self._scores(task.history[-1])

    def _scores(self, scores: Mapping[str, float]) -> None:
        epoch = int(scores["epoch"])
        for name, value in scores.items():
            if name not in ("epoch", "learning_rate"):
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Close the file."""
        if self._writer:
            self._writer.close()

    def on_exception(self, *_: Any) -> None:
        """Close the file where the training fails, which is not told of its teardown."""
        self.teardown()
