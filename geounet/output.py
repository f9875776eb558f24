"""Outputs are written beside and renamed when whole: nothing under the final name is ever partial."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError, OutputExistsError


def check_output(path: Path | str, *, overwrite: bool = False) -> Path:
    """Return the path, if a file may be written there.

    Raises
    ------
    OutputExistsError
        It exists, and `overwrite` is not set.
    OutputError
        Its folder is missing or read-only.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file to write.")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists already; choose another name, or ask to overwrite it (-f).")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {folder}; make it first.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {folder} is read-only; name an output elsewhere.")
    return path


def check_tiff(path: Path, *, overwrite: bool = False) -> Path:
    """Return the path, if a GeoTIFF may be written there.

    Raises
    ------
    OutputError, OutputExistsError
        As `check_output`, or the suffix says another format.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"cannot write {path}: maps are written as GeoTIFFs, so its name ends in .tif or .tiff.")
    return check_output(path, overwrite=overwrite)


def check_distinct(outputs: Iterable[Path], inputs: Iterable[Path | str]) -> None:
    """Refuse outputs of one name, and an output that is an input.

    Raises
    ------
    OutputError
        Naming the file.
    """
    read = {Path(path).resolve() for path in inputs}
    written: set[Path] = set()
    for output in outputs:
        place = output.resolve()
        if place in read:
            raise OutputError(f"{output} is the scene itself, which would be lost; choose another name.")
        if place in written:
            raise OutputError(f"{output} is named for two outputs; give each a name of its own.")
        written.add(place)


@contextmanager
def atomic(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Name to write to, beside `path` and with its suffix, which becomes `path` when the block ends well.

    When the block raises, what was written is removed and `path` is as it was before.

    Raises
    ------
    OutputExistsError, OutputError
        As `check_output`, before the block and once more before the renaming.
    """
    path = check_output(path, overwrite=overwrite)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        check_output(path, overwrite=overwrite)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
