"""GDAL's manners: its one cache, what it mutters in logs and warnings, and what it means by an error."""

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import get_gdal_config, getenv, hasenv, set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError

GDAL_ERRORS = (RasterioError, CPLE_BaseError, SystemError)
"""How rasterio tells that GDAL failed: wrapped, bare, and where GDAL gave no reason."""

CACHE_BYTES = 256 * 2**20
"""Most that GDAL's cache of decoded blocks may hold; its own default, 5 % of the memory, grows with the machine."""

REMOTE_DEFAULTS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # one request for the file instead of a listing of its folder
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the whole header of most GeoTIFFs in the first request
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds; GDAL about doubles it each time
    "GDAL_HTTP_CONNECTTIMEOUT": "15",  # seconds
    "GDAL_HTTP_TIMEOUT": "120",  # seconds, of one request
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": str(16 * 2**20),  # bytes, of one open file
}
"""GDAL's options for files behind a network, set only where the user has not; its own wait for ever and never retry."""

_REMOTE = re.compile(
    r"[a-z][a-z0-9+.-]+://|/vsi(?!mem|zip|gzip|tar|7z|rar|subfile|sparse|stdin|crypt|cached)", re.IGNORECASE
)
_LOCAL = re.compile(r"file://", re.IGNORECASE)
_NESTED = re.compile(
    r"/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(?:_streaming)?[/?]|(?:https?|s3|gs|az)://", re.IGNORECASE
)

_DAMAGE = re.compile(r"corrupt|premature end|truncated", re.IGNORECASE)
_HTTP = re.compile(r"HTTP (?:error|response) code\s*:\s*\d+|response_code=\d+")

_filtering = threading.Lock()
_bounding = threading.Lock()


def open_raster(path: str) -> Any:
    """Open a raster for reading, with GDAL's block cache bounded."""
    bound_cache()
    return rasterio.open(path)


def bound_cache() -> None:
    """Bound the block cache of the process, unless the user has set its size.

    The size is GDAL's one per process. Set inside a `rasterio.Env` it would be taken back at the end of the
    block, by whichever thread leaves first, so it is set outside.
    """
    if "GDAL_CACHEMAX" in os.environ or (hasenv() and "GDAL_CACHEMAX" in getenv()):
        return
    with _bounding:
        if get_gdal_config("GDAL_CACHEMAX") > CACHE_BYTES:
            set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)


def is_remote(path: str) -> bool:
    """Tell whether a file lies behind a network, by its name; archives and subdatasets count by what they name."""
    return bool(_NESTED.search(path)) or bool(_REMOTE.match(path) and not _LOCAL.match(path))


def network(path: str) -> AbstractContextManager[Any]:
    """GDAL's options while a file is opened or read: `REMOTE_DEFAULTS` for one behind a network.

    What the user set, in the environment or in a `rasterio.Env`, stays.
    """
    if not is_remote(path):
        return nullcontext()
    set_already = {name.upper() for name in (*os.environ, *(getenv() if hasenv() else ()))}
    options = {name: value for name, value in REMOTE_DEFAULTS.items() if name not in set_already}
    env: AbstractContextManager[Any] = rasterio.Env(**options)
    return env


@contextmanager
def quiet() -> Iterator[None]:
    """Keep rasterio's warning about a missing place from the user, whom scenes tell it in their notes.

    Python's warning filters are one per process, so only one thread at a time may change them.
    """
    with _filtering, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


class _Hearing(logging.Handler):
    """Keeps what GDAL warns of in one thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.get_ident()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.heard.append(re.sub(r"^CPLE_\w+(?: in |:)", "", record.getMessage()))


@contextmanager
def hearing() -> Iterator[list[str]]:
    """Texts of the warnings that GDAL gives in this thread; rasterio logs them instead of raising."""
    handler = _Hearing()
    loggers = [logging.getLogger(name) for name in ("rasterio._err", "rasterio._env")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler.heard
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def refusals(heard: Sequence[str]) -> list[str]:
    """What servers answered, once each, among GDAL's warnings, without what it did about it."""
    return list(dict.fromkeys(found[0] for text in heard if (found := _HTTP.search(text))))


def damage(heard: Sequence[str]) -> str | None:
    """What GDAL warned of and made up in its stead: the first of its warnings that tells of lost pixels."""
    return next((text for text in heard if _DAMAGE.search(text)), None)


def remedy(path: str) -> str:
    """What to do about a file that cannot be read."""
    if is_remote(path):
        return "Check the address, the network and your permission (a signed address runs out), or try again later."
    return "The file, or one that it refers to, is missing or damaged; fetch or make it again."


def reason(error: BaseException) -> str:
    """What GDAL said first, from the end of a chain of errors."""
    texts = [str(error)]
    inner = error.__cause__ or error.__context__
    while inner is not None:
        texts.append(str(inner))
        inner = inner.__cause__ or inner.__context__
    said = [text for text in dict.fromkeys(texts) if text and "See previous exception" not in text]
    return said[-1].strip().rstrip(".") if said else type(error).__name__
