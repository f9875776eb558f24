"""One process at a training, and a lock that goes with it however it ends."""

import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ...errors import OutputError, OutputExistsError

_log = logging.getLogger(__name__)

LOCK = "lock"


@contextmanager
def lock(folder: Path, out: Path) -> Iterator[None]:
    """Make a folder, if need be, and have it to oneself; removed in the end if nothing else is in it.

    The lock is the system's (`flock`), not the file: of a process that was killed, nothing remains to be cleared away.

    Raises
    ------
    OutputExistsError
        Another process has it.
    OutputError
        The folder cannot be made.
    """
    with _locked(folder, out) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                with suppress(OSError):  # somebody has put something there since
                    folder.rmdir()


def _locked(folder: Path, out: Path) -> TextIO:
    """Lock file of a folder, locked."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {out} ({error.strerror}); name another.") from error
        try:
            file = (folder / LOCK).open("a+", encoding="utf-8")
        except FileNotFoundError:  # its last user has just removed the folder
            continue
        except OSError as error:
            raise OutputError(f"cannot write in the folder {folder} ({error.strerror}); name another.") from error
        try:
            _take(file)
            if _is_at(file, folder / LOCK):
                return file
        except BlockingIOError:
            with file:
                file.seek(0)
                owner = file.read().strip() or "another process"
            raise OutputExistsError(
                f"{owner} is training {out} at this moment (in {folder}): wait for it, or choose another folder."
            ) from None
        file.close()  # of a folder that was removed while it was being locked


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file is the one that has the name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _take(file: TextIO) -> None:
    """Lock a file, or raise BlockingIOError."""
    if sys.platform == "win32":
        import msvcrt

        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        _log.warning("%s lies on a file system without locks; see to it that no two processes train there.", file.name)
