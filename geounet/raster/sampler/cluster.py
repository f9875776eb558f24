"""Calls on the workers of a dask cluster; imported only where a client is active."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from distributed import Client, WorkerPlugin, get_worker


class _Holder(WorkerPlugin):
    """Brings something to every worker once, also to those that start later, and goes when it is unregistered."""

    def __init__(self, things: Any) -> None:
        self.things = things


def _with_held(name: str, function: Callable[..., Any], *args: Any) -> Any:
    # of this worker, not of this process: there may be several workers in one, and one of them may leave
    return function(get_worker().plugins[name].things, *args)  # type: ignore[attr-defined]


@contextmanager
def on_cluster(things: Any, client: Client) -> Iterator[tuple[Callable[..., Future[Any]], int]]:
    """How to submit ``function(things, *args)`` to a client's workers, and how many calls run side by side.

    What a worker had in hand when it died, another does again. A worker that replaces it has `things` before its
    first call.
    """
    name = f"geounet-{uuid.uuid4().hex}"
    client.register_plugin(_Holder(things), name=name)
    executor = client.get_executor(pure=False)  # type: ignore[no-untyped-call]
    try:
        threads = client.nthreads()  # type: ignore[no-untyped-call]
        yield partial(executor.submit, _with_held, name), max(sum(threads.values()), 1)
    finally:
        if client.status == "running":
            executor.shutdown(wait=False)
            client.unregister_worker_plugin(name)  # type: ignore[no-untyped-call]
