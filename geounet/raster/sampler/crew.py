"""Who reads: threads, processes or a dask cluster, all behind one call."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import dask
from dask.base import get_scheduler
from dask.system import CPU_COUNT

from ...errors import ConfigError

P = TypeVar("P", bound=Executor)


@dataclass(frozen=True)
class Crew:
    """Where calls run, on things that were brought there once."""

    submit: Callable[..., Future[Any]]
    """``submit(function, *args)`` is the future of ``function(things, *args)``."""
    size: int
    """Calls that run side by side."""
    shares_memory: bool
    """True if calls see this process's own objects."""


@contextmanager
def crew(prepare: Callable[..., Any]) -> Iterator[Crew]:
    """Crew of the dask scheduler that is active: threads as a rule, and the active cluster where there is one.

    Dask's own settings are followed (``dask.config.set(scheduler=…, num_workers=…)``).

    Parameters
    ----------
    prepare : callable
        ``prepare(share_memory=…)`` makes the things that calls work on. They reach each process once, not once a
        call; on a cluster also the workers that join later.

    Raises
    ------
    ConfigError
        The scheduler is one that tasks cannot be handed to.
    """
    asked = dask.config.get("scheduler", None)
    workers = int(dask.config.get("num_workers", None) or CPU_COUNT)
    get = get_scheduler()
    if isinstance(asked, ThreadPoolExecutor):
        yield _threads(asked, asked._max_workers, prepare)
    elif get is None or get is dask.threaded.get:
        with _left_behind(ThreadPoolExecutor(workers, thread_name_prefix="geounet-read")) as pool:
            yield _threads(pool, workers, prepare)
    elif get is dask.local.get_sync:
        things = prepare(share_memory=True)
        yield Crew(lambda function, *args: _now(partial(function, things, *args)), 1, True)
    elif get is dask.multiprocessing.get:
        context = get_context(dask.config.get("multiprocessing.context", "spawn"))
        things = prepare(share_memory=False)
        with _left_behind(ProcessPoolExecutor(workers, context, _hold, (things,))) as pool:
            yield Crew(lambda function, *args: pool.submit(_with_held, function, *args), workers, False)
    elif hasattr(getattr(get, "__self__", None), "get_executor"):
        from .cluster import on_cluster

        with on_cluster(prepare(share_memory=False), get.__self__) as (submit, size):
            yield Crew(submit, size, False)
    else:
        raise ConfigError(
            f"windows cannot be read on the dask scheduler {asked!r}; set scheduler to 'threads', 'processes' or "
            "'synchronous', or start a distributed Client."
        )


def _threads(pool: Executor, size: int, prepare: Callable[..., Any]) -> Crew:
    things = prepare(share_memory=True)
    return Crew(lambda function, *args: pool.submit(function, things, *args), size, True)


@contextmanager
def _left_behind(pool: P) -> Iterator[P]:
    """A pool that drops what has not begun when it is left."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _now(call: Callable[[], Any]) -> Future[Any]:
    """Future of a call made here and now."""
    future: Future[Any] = Future()
    try:
        future.set_result(call())
    except Exception as error:  # noqa: BLE001  raised where the result is asked for, as by any pool
        future.set_exception(error)
    return future


_held: Any = None
"""What `_hold` brought to this process."""


def _hold(things: Any) -> None:
    global _held
    _held = things


def _with_held(function: Callable[..., Any], *args: Any) -> Any:
    return function(_held, *args)
