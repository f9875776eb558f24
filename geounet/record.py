"""What was run, with what, on what: enough to repeat it."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .output import atomic

PIECES = 64
PIECE = 1 << 20


def versions() -> dict[str, str]:
    """Versions of geounet, Python and the libraries that shape a result."""
    found = {"python": platform.python_version()}
    for name in ("geounet", "torch", "openvino", "numpy", "rasterio"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fingerprint(path: str | os.PathLike[str]) -> str | None:
    """Hash of a file's size and content; None for what is not a local file.

    All of a file up to 64 MiB is read; of a larger one, 64 pieces of 1 MiB spread evenly, so that a scene of a
    hundred gigabytes costs no more.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            for place in range(PIECES):
                file.seek(0 if size <= PIECES * PIECE else place * (size - PIECE) // (PIECES - 1))
                digest.update(file.read(PIECE if size > PIECES * PIECE else size))
                if size <= PIECES * PIECE:
                    break
    except (OSError, ValueError):
        return None
    return f"sha256:{digest.hexdigest()}"


def modified(path: str | os.PathLike[str]) -> str | None:
    """When a file was last written, in UTC as TIFF spells it; None for what is not a local file.

    Unlike the time of a run, it is the same for equal runs, which can then give equal bytes.
    """
    try:
        stamp = Path(path).stat().st_mtime
    except (OSError, ValueError):
        return None
    return datetime.fromtimestamp(stamp, UTC).strftime("%Y:%m:%d %H:%M:%S")


def record(**facts: Any) -> dict[str, Any]:
    """Facts of a run, with the time at which it ended (UTC)."""
    return {"ended": datetime.now(UTC).isoformat(timespec="seconds"), **facts}


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write values as JSON, atomically.

    Raises
    ------
    OutputExistsError, OutputError
        As `geounet.output.atomic`.
    """
    path = Path(path)
    with atomic(path, overwrite=overwrite) as part:
        part.write_text(json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    return path
