"""Training on several devices: who starts the processes, what they are told, and how they end together.

The first process leads: it alone surveys, scores, and makes files. The others are started by it for the epochs, or by
`torchrun` or `srun`, which start the same command several times, on one machine or many.

Notes
-----
Each process has its own part of every batch of the plan (`Batches.share`). Gradients [1]_ are those of the losses of the
parts, averaged by their labelled pixels: what one device would find where the loss is a plain mean over pixels; with
class weights it is near to that, and Dice and other losses of regions look at one part at a time. Batch normalisation
takes its means over all parts on GPUs, and over each process's own on CPUs. Counts of validation pixels are added, so that
all processes have the same scores and stop at the same epoch.

References
----------
.. [1] S. Li et al., PyTorch distributed: experiences on accelerating data parallel training, VLDB 2020,
   arXiv:2006.15704.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import torch
from torch.distributed.distributed_c10d import Store

from ...errors import ConfigError, DeviceError, GeoUNetError
from ..epochs.loop import fit
from ..epochs.task import Progress, Task
from ..options import Fitting
from ..source.batches import Batches
from .meeting import (
    BACKENDS,
    PAUSE,
    Meeting,
    board_at,
    command_over,
    launched_board,
    launched_team,
    meeting_called,
    met,
)
from .sharing import Shared, seed_of
from .team import ALONE, Team

P = ParamSpec("P")
R = TypeVar("R")

GRACE = 2.0
"""Seconds in which a process that went wrong is found, once the connection to it is gone."""
_now: list[Meeting] = []
"""Meeting of launched processes that is going on, if there is one."""


@dataclass(frozen=True)
class Order:
    """What every process needs to know to take its part in the epochs."""

    task: Task
    batches: Batches
    chips: Batches
    device: str
    """Kind of device."""
    precision: str
    checkpoint: Path | None


def processes(fitting: Fitting, device: torch.device) -> int:
    """How many processes of this machine learn together.

    Parameters
    ----------
    fitting : Fitting
        Of whose ``devices`` ``auto`` is all GPUs, one process on a CPU, and as many as `torchrun` or `srun` started.
    device : torch.device
        What the first process would take if it was alone.

    Raises
    ------
    DeviceError
        There are not so many devices.
    ConfigError
        A batch has fewer samples than there are processes, or others were started than wished for.
    """
    team, devices = launched_team(), fitting.devices
    gpus = torch.cuda.device_count() if device.type == "cuda" else 1
    count = team.local_size if team.size > 1 else gpus if devices == "auto" else devices
    if team.size > 1 and devices not in ("auto", 1, count):
        raise ConfigError(
            f"training.devices is {devices}, but {count} processes were started on this machine; leave it out."
        )
    if max(count, team.size) > 1 and device.type not in BACKENDS:
        raise DeviceError(f"several processes cannot learn together on {device.type}; leave training.devices at 1.")
    if device.type == "cuda" and count > gpus:
        raise DeviceError(f"{count} GPUs are to be trained on, but there are {gpus} here; ask for no more.")
    if fitting.batch_size != "auto":
        _check_batch(fitting.batch_size, max(count, team.size))
    return count


def _check_batch(size: int, among: int) -> None:
    if size < among:
        raise ConfigError(
            f"a batch of {size} samples cannot be shared by {among} processes: training.batch_size is that of all together."
        )


def led(function: Callable[P, R]) -> Callable[P, R]:
    """A function that the first of several launched processes runs; in the others it helps, and returns the same."""

    @wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        return (
            function(*args, **options) if launched_team() is ALONE else _assembled(lambda: function(*args, **options))
        )

    return run


def run_or_help(command: Callable[[], R]) -> R:
    """What a command returns whose trainings several launched processes share; it runs in the first of them alone.

    Raises
    ------
    SystemExit
        In the others, once the command is over: with status 0 if it went well.
    """
    team = launched_team()
    if team is ALONE:
        return command()
    if team.rank:
        _help()
    with command_over():
        return command()


def _help() -> NoReturn:
    """Take part in the trainings of a command for as long as it runs."""
    try:
        while meeting_called():
            _assembled(lambda: None)
    except GeoUNetError:  # the first process has it too, and says it
        raise SystemExit(1) from None
    raise SystemExit(0)


def _assembled(lead: Callable[[], R]) -> R:
    team = launched_team()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    with met(team, launched_board(), kind) as meeting:
        if team.rank:
            with _blame(meeting):
                _carry_out(meeting.hear(), team)
            result: R = meeting.hear()
            return result
        _now.append(meeting)
        try:
            result = lead()
            meeting.tell(result)
            return result
        finally:
            _now.clear()


def fit_together(
    task: Task,
    batches: Batches,
    chips: Batches,
    device: torch.device,
    precision: str,
    progress: Progress | None,
    folder: Path | None,
    checkpoint: Path | None = None,
    *,
    devices: int,
) -> None:
    """Run the epochs in as many processes as `processes` says, this one the first of them; see `loop.fit`.

    Raises
    ------
    Exception
        What went wrong in any of them; none is left behind.
    DeviceError
        A process ended and did not say why.
    """
    _check_batch(task.fitting.batch, _now[0].team.size if _now else devices)
    order = Order(task, batches, chips, device.type, precision, checkpoint)
    if _now:
        meeting = _now[0]
        with _blame(meeting):
            meeting.tell(order)
            _carry_out(order, meeting.team, progress, folder)
    elif devices > 1:
        with _hired(devices, device.type) as meeting:
            meeting.tell(order)
            _carry_out(order, meeting.team, progress, folder)
    else:
        fit(task, batches, chips, device, precision, progress, folder, checkpoint)


def _carry_out(order: Order, team: Team, progress: Progress | None = None, folder: Path | None = None) -> None:
    """Take one's part in the epochs."""
    task, seed = order.task, order.task.generator.initial_seed()
    task.team = team
    if team.rank:  # other chips than the first process has are augmented otherwise
        torch.manual_seed(seed_of(seed, team.rank))
        task.generator.manual_seed(seed_of(seed, team.rank))
    device = torch.device(order.device, team.local_rank) if order.device == "cuda" else torch.device(order.device)
    batches, chips = (Shared(whole, team, task.legend.ignore_index, seed) for whole in (order.batches, order.chips))
    with _cores(team):
        fit(task, batches, chips, device, order.precision, progress, folder, order.checkpoint)


@contextmanager
def _cores(team: Team) -> Iterator[None]:
    """Share the cores out among the processes of this machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // team.local_size))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _hired(count: int, device: str) -> Iterator[Meeting]:
    """A team of this process and others, started for the length of the block."""
    board = board_at("127.0.0.1", 0, first=True)
    first, *others = (Team(rank, count, rank, count) for rank in range(count))
    port: int = board.port  # type: ignore[attr-defined]
    hands = [get_context("spawn").Process(target=_serve, args=(port, team, device)) for team in others]
    try:
        for hand in hands:
            hand.start()
        _wait_for(hands, board)
        with met(first, board, device) as meeting, _blame(meeting, hands):
            yield meeting
            for hand in hands:
                hand.join()
    finally:
        for hand in hands:
            if hand.is_alive():
                hand.kill()  # has nothing to put in order, and may be deaf to what is milder
                hand.join()


def _wait_for(hands: Sequence[BaseProcess], board: Store) -> None:
    """Wait until all processes are there: those that have not come in time never will."""
    while not all(board.check([f"here {rank}"]) for rank in range(1, len(hands) + 1)):
        if any(hand.exitcode is not None for hand in hands):
            raise DeviceError(
                "a process to train on another device ended before it began. If a script starts this training, it has to do "
                'so under `if __name__ == "__main__":`, as each process imports the script.'
            )
        time.sleep(PAUSE)


def _serve(port: int, team: Team, device: str) -> None:
    """Life of a process that was started to take part."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides for all
    threading.Thread(target=_end_with_parent, daemon=True).start()
    board = board_at("127.0.0.1", port, first=False)
    board.set(f"here {team.rank}", "")
    try:
        with met(team, board, device) as meeting, _blame(meeting):
            _carry_out(meeting.hear(), team)
    except Exception:  # noqa: BLE001  it is on the board, for the first process to say
        sys.exit(1)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _blame(meeting: Meeting, hands: Sequence[BaseProcess] = ()) -> Iterator[None]:
    """Where the connection broke because of another process, tell what happened there."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, GeoUNetError):
            raise
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            if failure := meeting.failure():
                if meeting.team.rank:
                    raise SystemExit(1) from None
                raise failure from None
            for rank, hand in enumerate(hands, 1):
                if hand.exitcode:
                    raise DeviceError(
                        f"process {rank + 1} of {len(hands) + 1} that train together was ended from outside (status "
                        f"{hand.exitcode}); if memory ran out, lower training.batch_size or sampler.cache_gb."
                    ) from error
            time.sleep(PAUSE)
        raise
