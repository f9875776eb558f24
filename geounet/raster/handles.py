"""Datasets that many threads read, each through a handle of its own."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MOST_OPEN = 64
"""Files that a thread keeps open at once: training on a thousand scenes must not run out of file handles."""


class Handle:
    """A dataset, opened at most once in each thread, and anew after pickling or forking.

    The least recently opened of a thread's files are closed when there are more than `MOST_OPEN`; all are
    closed with the scene or labels that hold the handle.
    """

    def __init__(self, opener: Callable[[], Any]) -> None:
        self.opener = opener
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.opener,)

    @property
    def opened(self) -> bool:
        """True if this thread has the dataset open."""
        # a fork shares the file's position with its parent, so both would read nonsense
        return getattr(self._local, "dataset", None) is not None and self._local.pid == os.getpid()

    def dataset(self) -> Any:
        """The dataset of this thread.

        Raises
        ------
        rasterio.errors.RasterioError
            It cannot be opened, or not any more.
        """
        local = self._local
        if not self.opened:
            local.dataset = self.opener()
            local.pid = os.getpid()
            _remember(self)
        return local.dataset

    def close(self) -> None:
        """Let go of this thread's dataset."""
        self._local.dataset = None


_recent = threading.local()


def _remember(handle: Handle) -> None:
    """Count an opened file among those of this thread, and close the oldest beyond `MOST_OPEN`."""
    if not hasattr(_recent, "handles"):
        _recent.handles = OrderedDict()
    handles: OrderedDict[int, weakref.ref[Handle]] = _recent.handles
    handles[id(handle)] = weakref.ref(handle)
    handles.move_to_end(id(handle))
    while len(handles) > MOST_OPEN:
        _, oldest = handles.popitem(last=False)
        if (gone := oldest()) is not None:
            gone.close()
