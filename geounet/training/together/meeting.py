"""Where the processes of a team meet, and how the first tells the others what to do, and they it what went wrong."""

import itertools
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import cloudpickle
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store

from .team import ALONE, Team, portable

PATIENCE = timedelta(minutes=30)
"""How long processes wait for each other to come."""
PAUSE = 0.1
"""Seconds between two looks at the board."""
FAREWELL = 5.0
"""Seconds that the first process waits for the others to have read how it went, before the board goes with it."""
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""By kind of device; what is counted, and what is said, goes by gloo always."""
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
)
"""Variables in which `torchrun` and `srun` tell a process who it is; a SLURM script without `srun` is one process."""
_held = 0
"""Meetings of launched processes so far."""


@dataclass(frozen=True)
class Meeting:
    """Processes that are connected, and a board on which each can write and all can read at any time."""

    team: Team
    board: Store
    _said: Iterator[int] = field(default_factory=itertools.count)

    def tell(self, what: Any) -> None:
        """Say something to the others, who wait for it for as long as it takes."""
        self.board.set(f"said {next(self._said)}", "")  # a broadcast alone is waited for half an hour, and no longer
        distributed.broadcast_object_list([cloudpickle.dumps(what)])

    def hear(self) -> Any:
        """What the first process says.

        Raises
        ------
        SystemExit
            It has left; it says why, so nobody else need.
        """
        key = f"said {next(self._said)}"
        said: list[Any] = [None]
        try:
            while not self.board.check([key]):
                if self.board.check(["left 0"]):
                    raise SystemExit(1)
                time.sleep(PAUSE)
            distributed.broadcast_object_list(said)
        except RuntimeError:  # the connection, and perhaps the board, went with it
            raise SystemExit(1) from None
        return cloudpickle.loads(said[0])

    def leave(self, error: BaseException) -> None:
        """Write down why this process cannot go on."""
        told = portable(error) if isinstance(error, Exception) else RuntimeError(type(error).__name__)
        told.add_note(f"in process {self.team.rank + 1} of {self.team.size}:\n{traceback.format_exc()}")
        self.board.set(f"left {self.team.rank}", cloudpickle.dumps(told))

    def failure(self) -> Exception | None:
        """Why another process left; None if none did."""
        for rank in range(self.team.size):
            if rank != self.team.rank and self.board.check([f"left {rank}"]):
                error: Exception = cloudpickle.loads(self.board.get(f"left {rank}"))
                return error
        return None


@contextmanager
def met(team: Team, board: Store, device: str) -> Iterator[Meeting]:
    """Processes, connected for the length of the block; the board tells what ended one of them."""
    distributed.init_process_group(
        BACKENDS[device], store=board, rank=team.rank, world_size=team.size, timeout=PATIENCE
    )
    meeting = Meeting(team, board)
    try:
        yield meeting
    except SystemExit:  # follows another process, which has written
        raise
    except BaseException as error:
        meeting.leave(error)
        raise
    finally:
        distributed.destroy_process_group()


def launched_team() -> Team:
    """Team that `torchrun` or `srun` started this process for; `ALONE` if they did not."""
    for names in LAUNCHERS:
        *found, tasks = (os.environ.get(name, "") for name in names)
        if all(found) and tasks:
            rank, size, local_rank = map(int, found)
            among = int(tasks.split("(")[0].split(",")[0])  # SLURM writes 4(x2) for 4 tasks on each of 2 nodes
            return Team(rank, size, local_rank, among) if size > 1 else ALONE
    return ALONE


def launched_board() -> Store:
    """Board of the launched team, for its next meeting, to which the first process calls."""
    global _held
    _held += 1
    if not launched_team().rank:
        _launched_store().set(f"meeting {_held}", "")
    return PrefixStore(f"meeting {_held}", _launched_store())


def meeting_called() -> bool:
    """Wait until the first process calls to the next meeting; False if there will be none.

    Raises
    ------
    SystemExit
        The command has failed, or nobody knows how it went.
    """
    store = _launched_store()
    try:
        while not store.check([f"meeting {_held + 1}"]):
            if store.check(["over"]):
                well = store.get("over") == b"well"
                store.add("gone", 1)
                if well:
                    return False
                raise SystemExit(1)
            time.sleep(PAUSE)
    except RuntimeError:  # the first process keeps the store, and has ended
        raise SystemExit(1) from None
    return True


@contextmanager
def command_over() -> Iterator[None]:
    """Let the others go when the block is over, and tell them how it went."""
    store, others = _launched_store(), launched_team().size - 1
    how = "ill"
    try:
        yield
        how = "well"
    finally:
        store.set("over", how)
        end = time.monotonic() + FAREWELL
        while store.add("gone", 0) < others and time.monotonic() < end:
            time.sleep(PAUSE)


@cache
def _launched_store() -> Store:
    """Store that lasts as long as this process: of `torchrun` itself, or of the first process."""
    team = launched_team()
    if "MASTER_ADDR" in os.environ:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    else:
        address = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
        port = 15000 + int(os.environ["SLURM_JOB_ID"]) % 10000
    there = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return board_at(address, port, first=not there and team.rank == 0)


def board_at(address: str, port: int, *, first: bool) -> Store:
    """Board that all processes meet at; the first of them lays it out, at a free port for 0."""
    board: Store = distributed.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=first, wait_for_workers=False, timeout=PATIENCE
    )
    return board
