"""Files that lie beside those in use, and that nothing uses."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..config import LoadedConfig
from ..config.opening import Row
from ..raster.gdal import is_remote
from .findings import Finding

SHOWN = 5
"""Names in one message; all are in its values."""


def beside(loaded: LoadedConfig, spoken_for: Iterable[str] = ()) -> Iterator[Finding]:
    """Label files without a scene, and scene files without a use, in the folders of those that have one.

    Parameters
    ----------
    loaded : LoadedConfig
    spoken_for : iterable of path
        Files that another finding has named.
    """
    rows = loaded.named()
    known = {_place(path) for row in rows for path in row[:2] if not is_remote(path)} | set(map(_place, spoken_for))
    scenes = _folders(row[0] for row in rows)
    pattern = loaded.config.labels.path if loaded.config.labels else None
    shared = pattern is not None and "{stem}" not in pattern  # what lies beside one file for all is no part of a set
    labels = {} if shared else _folders(row[1] for row in rows)
    for folder, suffixes in labels.items():
        named = _named_as_labels(pattern, rows) if folder in scenes else None
        orphans = _orphans(folder, suffixes, known, named)
        known |= set(orphans)
        if orphans:
            yield Finding(
                "orphan-labels", "warning", str(folder),
                f"{_some(orphans)} {'lies' if len(orphans) == 1 else 'lie'} beside the labels in use, and no scene uses "
                f"{'it' if len(orphans) == 1 else 'them'}. Add the scenes, or take the files away.",
                {"files": [str(path) for path in orphans]},
            )  # fmt: skip
    for folder, suffixes in scenes.items():
        orphans = _orphans(folder, suffixes, known, None)
        if orphans:
            yield Finding(
                "orphan-scenes", "note", str(folder),
                f"{_some(orphans)} {'lies' if len(orphans) == 1 else 'lie'} beside the scenes in use, and the config does "
                f"not name {'it' if len(orphans) == 1 else 'them'}. Name what should be used.",
                {"files": [str(path) for path in orphans]},
            )  # fmt: skip


def _folders(paths: Iterable[str]) -> dict[Path, set[str]]:
    """Folders of local files, and the suffixes of those in use."""
    found: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        if not is_remote(path) and Path(path).is_file():
            found[_place(path).parent].add(Path(path).suffix.lower())
    return found


def _orphans(folder: Path, suffixes: set[str], known: set[Path], named: re.Pattern[str] | None) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix.lower() in suffixes and path not in known
        and (named is None or named.fullmatch(path.name))
    ]  # fmt: skip


def _named_as_labels(pattern: str | None, rows: Sequence[Row]) -> re.Pattern[str]:
    """What labels are called where scenes lie in the same folder: as the config's pattern says, or as the table's are."""
    if pattern is not None:
        return re.compile(re.escape(Path(pattern).name).replace(re.escape("{stem}"), ".+"))
    tails = {
        Path(labels).name.removeprefix(Path(scene).stem)
        for scene, labels, _ in rows
        if Path(labels).name.startswith(Path(scene).stem)
    } - {Path(rows[0][0]).suffix}
    return re.compile(f".+(?:{'|'.join(map(re.escape, sorted(tails)))})" if tails else "(?!)")


def _place(path: str) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  a link stands for itself


def _some(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:SHOWN])
    return names + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
