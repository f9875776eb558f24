"""Decoded blocks kept in files, memory-mapped."""

import json
import logging
import math
import mmap
import os
import secrets
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import OutputError
from .stores import Arrays, Key, Store, size_of

MAGIC = b"geounet block 2 "
ALIGN = 64
FORGOTTEN = 3600
"""Seconds after which a block that is still being written has nobody left who writes it."""

_log = logging.getLogger(__name__)


class DiskStore(Store):
    """Blocks in files, uncompressed and memory-mapped; those written longest ago go beyond `limit_bytes`.

    Several processes may share a folder. A block gets its name when it is whole, and has checksums, which are looked
    at when a process first reads it: a damaged block is made again. When the disk is full, blocks are read anew each
    time, and the log says so.

    Parameters
    ----------
    folder : path
        Made if it is missing. Nothing else should lie in it.
    limit_bytes : int
        Most that the folder holds.

    Raises
    ------
    OutputError
        The folder cannot be made or written to.
    """

    def __init__(self, folder: str | os.PathLike[str], limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot keep blocks in {self.folder}: {error.strerror}; name another folder for the cache."
            ) from error
        if not os.access(self.folder, os.W_OK):
            raise OutputError(f"cannot keep blocks in {self.folder}: the folder is read-only; name another.")
        self._bytes: int | None = None
        self._sound: set[Key] = set()
        self._told = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.limit_bytes)

    def _find(self, key: Key) -> Arrays | None:
        return _mapped(self._path(key)) if key in self._sound else None

    def _load(self, key: Key) -> Arrays | None:
        arrays = _mapped(self._path(key), check=True)
        if arrays is not None:
            self._sound.add(key)
        return arrays

    def _path(self, key: Key) -> Path:
        name, row, col = key
        return self.folder / name / f"{row}_{col}.block"

    def _write(self, key: Key, arrays: Arrays) -> None:
        if size_of(arrays) > self.limit_bytes:
            return
        path = self._path(key)
        part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(exist_ok=True)
            with part.open("wb") as file:
                file.write(_header(arrays))
                for array in arrays:
                    file.write(np.ascontiguousarray(array).data)
            part.replace(path)
            self._sound.add(key)
        except OSError as error:
            part.unlink(missing_ok=True)
            if not self._told:
                _log.warning("cannot keep blocks in %s: %s; they are read anew each time.", self.folder, error.strerror)
            self._told = True

    def _keep(self, key: Key, arrays: Arrays) -> None:  # noqa: ARG002
        if self._bytes is not None:
            self._bytes += size_of(arrays)
        if self._bytes is None or self._bytes > self.limit_bytes:
            self._bytes = self._tidy()

    def _tidy(self) -> int:
        """Bytes in the folder once the oldest blocks beyond nine tenths of the limit are gone, if it was passed.

        Other processes write too, so sizes are looked up anew; the tenth makes room for many blocks at a time. What
        a process that was killed left half written goes as well.
        """
        total, blocks, now = 0, [], time.time()
        for path in self.folder.glob("*/*"):
            try:
                stat = path.stat()
                if path.suffix == ".part" and now - stat.st_mtime > FORGOTTEN:
                    path.unlink(missing_ok=True)
                    continue
            except OSError:
                continue  # another process was faster
            total += stat.st_size
            if path.suffix == ".block":
                blocks.append((stat.st_mtime_ns, stat.st_size, path))
        if total <= self.limit_bytes:
            return total
        for _, size, path in sorted(blocks):
            if total <= 0.9 * self.limit_bytes:
                break
            try:
                path.unlink(missing_ok=True)  # who has it mapped keeps it until done
            except OSError:
                continue
            total -= size
        return total


def _header(arrays: Arrays) -> bytes:
    """Checksum of the arrays, their types and shapes, and a checksum of all that, in a multiple of 64 bytes."""
    check = 0
    for array in arrays:
        check = zlib.crc32(np.ascontiguousarray(array).data, check)
    facts = json.dumps([check, [[array.dtype.str, list(array.shape)] for array in arrays]]).encode()
    text = b"%s%08x %s" % (MAGIC, zlib.crc32(facts), facts)
    return text + b" " * (-(len(text) + 1) % ALIGN) + b"\n"


def _mapped(path: Path, *, check: bool = False) -> Arrays | None:
    """Arrays of a block's file, mapped; None if there is none, or what is there is not whole.

    Parameters
    ----------
    check : bool
        Whether to read the arrays and compare their checksum; that of the header always is.
    """
    try:
        with path.open("rb") as file:
            space = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    start = space.find(b"\n") + 1
    sealed, _, facts = space[len(MAGIC) : start].rstrip().partition(b" ")
    if space[: len(MAGIC)] != MAGIC or sealed != b"%08x" % zlib.crc32(facts):
        return None
    checksum, kinds = json.loads(facts)
    arrays = []
    if len(space) != start + sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in kinds):
        return None
    if check and zlib.crc32(memoryview(space)[start:]) != checksum:
        return None
    for kind, shape in kinds:
        arrays.append(np.frombuffer(space, np.dtype(kind), math.prod(shape), start).reshape(shape))
        start += arrays[-1].nbytes
    return tuple(arrays)
