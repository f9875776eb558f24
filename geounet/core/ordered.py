"""Work ahead without losing the order, and without piling up."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Pool(Protocol):
    """Where calls run: an `Executor`, or what submits like one."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Future of ``function(*args)``."""
        ...


def in_order(pool: Pool, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R, None, None]:
    """Results of ``function(item)`` in the order of the items, with up to `ahead` of them under way.

    Generators of this kind compose: each stage of a pipeline has a pool of its own and pulls from the one before,
    so the slowest stage sets the pace and each holds at most `ahead` + 1 items.

    Parameters
    ----------
    pool : Pool
        Where the function runs; its threads or processes set how many run at once.
    ahead : int
        Calls submitted and not yet handed out, at least 1.

    Raises
    ------
    Exception
        The first that a call raised, in its turn; calls not yet begun are dropped.
    """
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
