"""What tells one state of a file, and one way of reading it, from another."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from dask.base import tokenize

from ...record import PIECE, PIECES, fingerprint
from ..gdal import GDAL_ERRORS, is_remote, open_raster, quiet
from ..labels import Labels
from ..scene import Scene


def key_of(*parts: Scene | Labels, purpose: Any) -> str | None:
    """Name of what is read for a purpose, which changes with whatever changes that; None if it cannot be told.

    It covers all that is known of how scenes and labels are read, and the content of their files.
    """
    with suppress(RuntimeError):  # a part that dask cannot tell from others
        how = tokenize(purpose, *parts, ensure_deterministic=True)
        files = sorted({file for part in parts for path in part.paths for file in files_of(path)})
        facts = [how, *(content(file) for file in files)]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:40]
    return None


def files_of(path: str) -> list[str]:
    """Files that a raster consists of: itself, its mask and metadata, the sources of a VRT."""
    if is_remote(path):
        return [path]
    with quiet():
        try:
            with open_raster(path) as dataset:
                return sorted({path, *dataset.files})
        except (*GDAL_ERRORS, OSError):  # told of better when it is read
            return [path]


def content(path: str) -> list[Any]:
    """What a file holds; where not all of it is read, also when it was written."""
    found = fingerprint(path)
    if found is None or (stat := Path(path).stat()).st_size <= PIECES * PIECE:
        return [found]
    return [found, stat.st_mtime_ns]
