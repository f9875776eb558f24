"""The run folder, which gets its name when the run is whole."""

import logging
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError, OutputExistsError

_log = logging.getLogger(__name__)

MODEL, RECORD = "model.safetensors", "run.json"
"""Files that make a folder a run folder."""


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the scores of each epoch as CSV."""
    names = list(history[0])
    rows = [",".join(names), *(",".join(f"{row[name]:.6g}" for name in names) for row in history)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@contextmanager
def run_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Folder to fill, which gets its name when the block ends well, and another one if it fails with a model in it."""
    place = out.resolve()  # a link to a run folder stays a link
    _check_run_folder(out, place, overwrite)
    token = secrets.token_hex(4)
    part = place.with_name(f".{place.name}.{token}.part")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out} ({error.strerror}); name another.") from error
    try:
        yield part
        _check_run_folder(out, place, overwrite)
        _put(part, place, place.with_name(f".{place.name}.{token}.old"))
    except BaseException:
        if (part / MODEL).exists():
            kept = part.rename(place.with_name(f"{place.name}.unfinished-{token}"))
            _log.warning("all epochs were over when this failed; the model is kept in %s.", kept)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_run_folder(out: Path, place: Path, overwrite: bool) -> None:
    """Refuse a name under which something is that must not be replaced."""
    if not place.exists():
        return
    if not place.is_dir():
        raise OutputError(f"{out} is a file; give the name of a folder to make.")
    if not overwrite:
        raise OutputExistsError(f"{out} exists already; choose another folder, or ask to overwrite it (-f).")
    if any(place.iterdir()) and not all((place / name).is_file() for name in (MODEL, RECORD)):
        raise OutputExistsError(
            f"{out} holds something else than a run (no {MODEL} and {RECORD}), and is not overwritten; "
            "choose another folder."
        )


def _put(part: Path, place: Path, aside: Path) -> None:
    """Rename `part` to `place`; what was there stands aside until that is done."""
    replaced = place.exists()
    if replaced:
        place.rename(aside)
    try:
        part.rename(place)
    except OSError:
        if replaced:
            aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)
