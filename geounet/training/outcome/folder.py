"""The run folder, which gets its name when the run is whole."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import OutputError, OutputExistsError
from ...output import atomic

MODEL, RECORD = "model.safetensors", "run.json"
"""Files that make a folder a run folder."""
HISTORY, LOGS = "history.csv", "logs"
"""Scores of each epoch, and what TensorBoard reads."""


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the scores of each epoch as CSV, over those of fewer epochs, and never in part."""
    names = list(history[0])
    rows = [",".join(names), *(",".join(f"{row[name]:.6g}" for name in names) for row in history)]
    with atomic(path, overwrite=True) as part:
        part.write_text("\n".join(rows) + "\n", encoding="utf-8")


def check_run_folder(out: Path, place: Path, overwrite: bool) -> None:
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


def put(part: Path, place: Path, aside: Path) -> None:
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
