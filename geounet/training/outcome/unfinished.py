"""Where a training lives until it is whole: a folder beside its name, from which it can go on.

``runs/water.unfinished`` holds ``started.json``, what is trained on what; ``checkpoint.pt`` and ``history.csv``, the
epochs so far; ``lock``, held by the process that is at it; and, once all epochs are over, ``run``, which becomes
``runs/water``. Each step of it leaves something that the next process can read right, wherever this one ends.
"""

import errno
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, ModelFileError, OutputError, OutputExistsError
from ..epochs.checkpoint import durable, epochs_in, sync
from .folder import HISTORY, LOGS, check_run_folder, put
from .locking import LOCK, lock

_log = logging.getLogger(__name__)

SUFFIX = ".unfinished"
STARTED, CHECKPOINT, INSIDE, WHOLE, REPLACED = "started.json", "checkpoint.pt", "run", "whole", "replaced"
OURS = (STARTED, CHECKPOINT, f"{CHECKPOINT}.part", f"{STARTED}.part", HISTORY, LOGS, INSIDE, WHOLE, REPLACED)
"""All that is ever in the folder, but for the lock; what else somebody puts there stays."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where a disk is full, or one's share of it."""
SHOWN = 40
"""Characters of a value that a refusal quotes."""


@dataclass
class Unfinished:
    """A training that does not have its name yet; its folder is this process's own."""

    folder: Path
    resume: bool
    overwrite: bool
    begun: bool = False

    @property
    def checkpoint(self) -> Path:
        """File that the epochs go on from, if it is there."""
        return self.folder / CHECKPOINT

    def begin(self, training: Mapping[str, Any], **about: Any) -> None:
        """Begin with a training, or go on with it.

        Parameters
        ----------
        training : mapping
            Plain values that the weights depend on; they are the same when it goes on.
        **about
            What else a person may want to know, and ``versions``, which the log tells if they are others.

        Raises
        ------
        ConfigError
            The epochs so far are those of another training; the message names what differs.
        """
        if self.resume and self.checkpoint.exists():
            self._compare(training, about)
        else:
            self._clear()
            self._write({"training": training, **about, "overwrite": self.overwrite})
        self.begun = True

    def remember(self, name: str, values: Any) -> None:
        """Keep plain values that were found when the training began."""
        self._write(_started(self.folder) | {name: values})

    def recall(self, name: str) -> Any:
        """What was remembered; None if nothing was."""
        return _started(self.folder).get(name)

    def _write(self, values: Mapping[str, Any]) -> None:
        with durable(self.folder / STARTED) as part:
            part.write_text(json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")

    def _compare(self, training: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        started = _started(self.folder)
        if differing := differences(started.get("training", {}), json.loads(json.dumps(training, default=str))):
            raise ConfigError(
                f"the training in {self.folder} cannot go on with something else than it began with: {'; '.join(differing)}. "
                "Put that back, or begin anew (-f)."
            )
        if other := differences(started.get("versions", {}), about.get("versions", {})):
            _log.warning("the training goes on with other versions than it began with: %s.", "; ".join(other))

    def inside(self) -> Path:
        """New folder for what the run is to hold, with what was written during the epochs already in it."""
        inside = self.folder / INSIDE
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
        if (self.folder / HISTORY).exists():
            shutil.copy2(self.folder / HISTORY, inside)
        if (self.folder / LOGS).exists():
            shutil.copytree(self.folder / LOGS, inside / LOGS)
        return inside

    def _clear(self) -> None:
        """Remove what is there of an earlier training, the checkpoint first: without it there is nothing to go on from."""
        self.checkpoint.unlink(missing_ok=True)
        torn = self.folder.glob(f".{Path(HISTORY).stem}.*.part.csv")  # by a process that was ended while it wrote
        for path in [*torn, *(self.folder / name for name in OURS)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def unfinished(out: Path, *, overwrite: bool, resume: bool) -> Iterator[Unfinished]:
    """Folder of a training, to itself; when the block ends well, what `Unfinished.inside` holds becomes `out`.

    If the block fails, epochs that are over are kept, and the log tells where.

    Raises
    ------
    OutputExistsError
        There are epochs already and neither `resume` nor `overwrite` is set; another process is at them; or a name is
        taken by something else.
    OutputError
        The folder cannot be made, or the disk is full.
    """
    place = out.resolve()  # a link to a run folder stays a link
    folder = beside(out)
    _check_folder(folder)
    if not folder.exists():
        check_run_folder(out, place, overwrite)
    with lock(folder, out):
        work = Unfinished(folder, resume, overwrite or (resume and bool(_started(folder).get("overwrite"))))
        try:
            _name_what_is_whole(work, out, place)
            check_run_folder(out, place, work.overwrite)
            _check_epochs(work, out)
            yield work
            check_run_folder(out, place, work.overwrite)
            _make_whole(work)
            _name_what_is_whole(work, out, place)
        except BaseException as error:
            if work.begun and (epochs := _epochs(work)):
                _log.warning(
                    "%d epochs are kept in %s; the same once more with resume=True (--resume) goes on from there.",
                    epochs, folder,
                )  # fmt: skip
            refuse_full_disk(error, folder)
            raise
        finally:
            if not work.checkpoint.exists():
                work._clear()


def refuse_full_disk(error: BaseException, folder: Path) -> None:
    """Say what to do about an error, if it is that there is no room.

    Raises
    ------
    OutputError
    """
    if isinstance(error, OSError) and error.errno in FULL:
        raise OutputError(
            f"there is no room left to write to {folder} ({error.strerror}). Make some, and give the same once more with "
            "--resume: what is finished is kept."
        ) from error


def name_whole(out: Path) -> None:
    """Give a run its name that is whole, but whose process was ended before it could do so."""
    folder = beside(out)
    if (folder / WHOLE).exists():
        with lock(folder, out):
            _name_what_is_whole(Unfinished(folder, resume=True, overwrite=False), out, out.resolve())


def remains(out: Path) -> bool:
    """Whether there are epochs from which the training of a run folder can go on."""
    return (beside(out) / CHECKPOINT).exists()


def beside(out: Path) -> Path:
    """Folder in which the training lives that is to become `out`."""
    place = out.resolve()
    return place.with_name(place.name + SUFFIX)


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two nested mappings, as ``training.epochs was 40 and is 80``."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        return [
            found
            for key in {**then, **now}
            for found in differences(then.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if then == now else [f"{name} was {_shown(then)} and is {_shown(now)}"]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _started(folder: Path) -> dict[str, Any]:
    """What the training in a folder was told; nothing if it did not come so far."""
    try:
        told = json.loads((folder / STARTED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{folder / STARTED} cannot be read ({error}), so what was trained is not known; begin anew (-f)."
        ) from error
    return told if isinstance(told, dict) else {}


def _check_folder(folder: Path) -> None:
    """Refuse a folder that geounet did not make."""
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not any((folder / name).exists() for name in (LOCK, STARTED))):
        raise OutputExistsError(
            f"{folder} is where an unfinished training would be, and holds something else; rename it, or choose another "
            "name for the run."
        )


def _check_epochs(work: Unfinished, out: Path) -> None:
    """Refuse to drop epochs that nobody said what to do with."""
    if not work.checkpoint.exists() or (work.overwrite and not work.resume):
        return
    epochs = epochs_in(work.checkpoint)  # refuses a damaged one, before anything is read
    if not work.resume:
        raise OutputExistsError(
            f"an earlier training of {out} was interrupted; {epochs} epochs of it are in {work.folder}. Go on with them "
            "(--resume), or begin anew (-f)."
        )


def _make_whole(work: Unfinished) -> None:
    """See all files onto the disk, then write down that they are there: from here on, only names are missing."""
    for path in sorted((work.folder / INSIDE).rglob("*"), reverse=True):
        sync(path)
    sync(work.folder / INSIDE)
    with durable(work.folder / WHOLE) as part:
        part.write_text(json.dumps({"overwrite": work.overwrite}), encoding="utf-8")


def _name_what_is_whole(work: Unfinished, out: Path, place: Path) -> None:
    """Give a run that is whole its name, wherever an earlier attempt ended, and tidy up after it."""
    whole = work.folder / WHOLE
    if not whole.exists():
        return
    if (work.folder / INSIDE).exists():
        check_run_folder(out, place, bool(json.loads(whole.read_text(encoding="utf-8"))["overwrite"]))
        put(work.folder / INSIDE, place, work.folder / REPLACED)
        sync(place.parent)
    work._clear()


def _epochs(work: Unfinished) -> int:
    """Epochs that are kept, as far as can be told."""
    with suppress(ModelFileError):
        return epochs_in(work.checkpoint) if work.checkpoint.exists() else 0
    return 0
