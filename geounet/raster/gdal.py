"""GDAL's manners: its one cache, what it mutters in logs and warnings, and what it means by an error."""

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import get_gdal_config, getenv, hasenv, set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError

GDAL_ERRORS = (RasterioError, CPLE_BaseError, SystemError)
"""How rasterio tells that GDAL failed: wrapped, bare, and where GDAL gave no reason."""

CACHE_BYTES = 256 * 2**20
"""Most that GDAL's cache of decoded blocks may hold; its own default, 5 % of the memory, grows with the machine."""

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


def reason(error: BaseException) -> str:
    """What GDAL said first, from the end of a chain of errors."""
    texts = [str(error)]
    inner = error.__cause__ or error.__context__
    while inner is not None:
        texts.append(str(inner))
        inner = inner.__cause__ or inner.__context__
    said = [text for text in dict.fromkeys(texts) if text and "See previous exception" not in text]
    return said[-1].strip().rstrip(".") if said else type(error).__name__
