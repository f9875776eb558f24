"""The file that an interrupted training goes on from: whole at any moment, and nothing in it is run."""

import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor

from ...errors import ModelFileError, OutputError
from ..source.batches import Batches
from .task import Task

KEY = "geounet"
"""What `Checkpoints` adds to what Lightning keeps of weights, optimiser, schedules, loss scale and callbacks."""
FORMAT = 1


class Checkpoints(lightning.Callback):
    """Keeps, after every epoch, all that the next ones depend on; and puts it back.

    What Lightning remembers of its loops is left out: it is of use within an epoch, is not the same in all its
    versions, and between two epochs comes down to how many there were.

    Parameters
    ----------
    path : Path
        The checkpoint, replaced as a whole each time. It is read by ``Trainer.fit(ckpt_path=...)``, with
        `CheckpointFile` among the trainer's plugins.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._epochs, self._ended = 0, False
        self._chance: Mapping[str, Tensor] = {}

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Let batches and chance go on where they were; nothing draws between here and the first batch."""
        batches = trainer.train_dataloader
        assert isinstance(batches, Batches)
        batches.passes = self._epochs
        if self._chance:
            _set_chance(self._chance, trainer.strategy.root_device)

    def on_train_epoch_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Keep the epoch before: at its own end, a schedule that follows the scores has still to see them."""
        if trainer.current_epoch > self._epochs:
            self._save(trainer)

    def on_train_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Keep the last epoch, and that it is the last."""
        self._ended = True
        self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        self._epochs = trainer.current_epoch
        trainer.save_checkpoint(self._path)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, task: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say how far the training is, in all its processes."""
        assert isinstance(task, Task)
        del checkpoint["loops"]
        checkpoint[KEY] = {
            "format": FORMAT,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "ended": self._ended,
            "chance": task.team.gather(_chance(trainer.strategy.root_device)),
        }

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, task: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count on from where the training was."""
        assert isinstance(task, Task)
        kept = checkpoint[KEY]
        self._epochs, self._chance = kept["epochs"], task.team.own(kept["chance"])
        trainer.should_stop = kept["ended"]
        loop = trainer.fit_loop
        for epochs in (loop.epoch_progress.current, loop.epoch_progress.total):
            epochs.load_state_dict(dict.fromkeys(("ready", "started", "processed", "completed"), self._epochs))
        steps = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.load_state_dict(dict.fromkeys(("ready", "completed"), kept["steps"]))


class CheckpointFile(CheckpointIO):
    """How Lightning writes and reads checkpoints here: never in part, never as a pickle that may run code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Replace the file."""
        try:
            with durable(Path(path)) as part:
                torch.save(checkpoint, part)
        except (OSError, RuntimeError) as error:  # torch wraps a full disk
            raise OutputError(
                f"cannot write the checkpoint {path} ({' '.join(str(error).split())}); the one before it is kept. Make room, "
                "and let the training go on (--resume)."
            ) from error

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Content of the file, on the CPU."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, its tensors on the CPU; every byte is held against its checksum.

    Raises
    ------
    ModelFileError
        The file is damaged, or none that geounet wrote.
    """
    return _read(path, mmap=False)


def epochs_in(path: Path) -> int:
    """Epochs that a checkpoint is of, without reading its tensors.

    Raises
    ------
    ModelFileError
        As `read_checkpoint`.
    """
    return int(_read(path, mmap=True)[KEY]["epochs"])


def _read(path: Path, *, mmap: bool) -> dict[str, Any]:
    try:
        if not mmap:
            _check_sums(path)
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        version = values[KEY]["format"]
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, EOFError) as error:
        raise ModelFileError(_damaged(path, error)) from error
    except (zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise ModelFileError(_damaged(path, error)) from error
    if version != FORMAT:
        raise ModelFileError(
            f"the checkpoint {path} has format version {version}; this geounet reads {FORMAT}. Go on with the geounet that "
            "wrote it, or begin anew (-f)."
        )
    return dict(values)


def _check_sums(path: Path) -> None:
    """Refuse a file with a flipped bit: torch does not look at the checksums that it writes."""
    with zipfile.ZipFile(path) as file:
        if (part := file.testzip()) is not None:
            raise zipfile.BadZipFile(f"{part} does not have its checksum")


def _damaged(path: Path, error: Exception) -> str:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return (
        f"the checkpoint {path} is damaged, or not one of geounet's ({why}). It is only ever replaced by a whole one, so look "
        "at the disk; bring the file back from a copy, or begin anew (-f)."
    )


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """Name to write to, beside `path`, which takes its place when the block ends well: for good, even if the power fails."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """See a file, or the names in a folder, onto the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders, and keeps names by itself
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _chance(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators, from which dropout is drawn, and the samples of torchgeo."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_chance(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
