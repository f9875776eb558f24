"""Where decoded blocks are kept: what every store does, and those in memory."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeAlias

from numpy.typing import NDArray

from ...errors import ConfigError
from .memory import free_memory

Key: TypeAlias = tuple[str, int, int]
"""Name of what the block is cut from, and the block's row and column."""
Arrays: TypeAlias = tuple[NDArray[Any], ...]

BUDGET = 0.25
"""Part of the memory free when a store is made that it may fill, if it is not told how much."""


class Store(ABC):
    """Keeps blocks that are costly to make; many threads ask at once, and each block is made by one of them."""

    limit_bytes: int
    """Most that is kept, in bytes; blocks in use come on top."""

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise ConfigError(f"a store of blocks holds 0 bytes or more, not {limit_bytes}.")
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._making: dict[Key, Future[Arrays]] = {}

    def block(self, key: Key, make: Callable[[], Arrays]) -> Arrays:
        """Arrays of a block: those kept, or else what `make` returns, which nobody may write to.

        Raises
        ------
        Exception
            What `make` raised, in each thread that waits for the block; nothing is kept, and the next call tries anew.
        """
        with self._lock:
            if (kept := self._find(key)) is not None:
                return kept
            future = self._making.get(key)
            if mine := future is None:
                future = self._making[key] = Future()
        if not mine:
            arrays = future.result()
            with self._lock:
                self._shared(key)
            return arrays
        try:
            loaded = self._load(key)
            arrays = self._made(key, make) if loaded is None else loaded
        except BaseException as error:
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            if loaded is None:
                self._keep(key, arrays)
        future.set_result(arrays)
        return arrays

    def _made(self, key: Key, make: Callable[[], Arrays]) -> Arrays:
        arrays = make()
        for array in arrays:
            array.flags.writeable = False
        self._write(key, arrays)
        return arrays

    @abstractmethod
    def _find(self, key: Key) -> Arrays | None:
        """What is kept of a block and takes no time to find; the lock is held."""

    @abstractmethod
    def _keep(self, key: Key, arrays: Arrays) -> None:
        """Keep a block and let go of others beyond the limit; the lock is held."""

    def _load(self, key: Key) -> Arrays | None:  # noqa: ARG002  most stores have no more than what is found at once
        """What is kept of a block where that takes a while to find; the lock is free."""
        return None

    def _write(self, key: Key, arrays: Arrays) -> None:  # noqa: B027  most stores have nothing to write
        """Write a block where that takes a while; the lock is free."""

    def _shared(self, key: Key) -> None:  # noqa: B027
        """Note that a block was used by a thread that waited for it; the lock is held."""


class MemoryStore(Store):
    """Blocks in memory; those not used for longest go when there are more than `limit_bytes`.

    Pickled, it arrives empty: each process fills its own.

    Parameters
    ----------
    limit_bytes : int, optional
        By default a quarter of the memory that is free (of a dask worker: of its limit) when the store is made.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        super().__init__(int(BUDGET * free_memory()) if limit_bytes is None else limit_bytes)
        self._asked = limit_bytes
        self._kept: OrderedDict[Key, Arrays] = OrderedDict()
        self._bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._asked,)

    @property
    def size_bytes(self) -> int:
        """What is kept now, in bytes."""
        return self._bytes

    def _find(self, key: Key) -> Arrays | None:
        if (arrays := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
        return arrays

    def _keep(self, key: Key, arrays: Arrays) -> None:
        if size_of(arrays) > self.limit_bytes:
            return  # all others would go, and it would not fit either
        self._kept[key] = arrays
        self._bytes += size_of(arrays)
        while self._bytes > self.limit_bytes:
            self._drop(self._last())

    def _last(self) -> Key:
        """Block to let go of."""
        return next(iter(self._kept))

    def _drop(self, key: Key) -> None:
        self._bytes -= size_of(self._kept.pop(key))


class PlannedStore(MemoryStore):
    """Blocks in memory for as long as a plan needs them again.

    When they do not all fit, the one that is needed last goes first, which leaves the fewest blocks to be made
    twice [1]_.

    Parameters
    ----------
    limit_bytes : int, optional
        As `MemoryStore`.

    References
    ----------
    .. [1] L. A. Belady, A study of replacement algorithms for a virtual-storage computer, IBM Systems Journal 5, 1966.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        super().__init__(limit_bytes)
        self._uses: dict[Key, deque[int]] = {}

    def expect(self, uses: Mapping[Key, Iterable[int]]) -> None:
        """Say when blocks will be asked for: places in the plan, ascending, one for each time."""
        self._uses.update((key, deque(places)) for key, places in uses.items())

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryStore, (self._asked,)  # another process reads another part of the plan

    def _find(self, key: Key) -> Arrays | None:
        if (arrays := self._kept.get(key)) is not None:
            self._shared(key)
        return arrays

    def _keep(self, key: Key, arrays: Arrays) -> None:
        self._shared(key)
        if self._uses.get(key):
            super()._keep(key, arrays)

    def _shared(self, key: Key) -> None:
        if places := self._uses.get(key):
            places.popleft()
        if not places and key in self._kept:
            self._drop(key)

    def _last(self) -> Key:
        return max(self._kept, key=lambda key: self._uses[key][0])


def size_of(arrays: Arrays) -> int:
    """Bytes of some arrays."""
    return sum(array.nbytes for array in arrays)
