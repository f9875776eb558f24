"""Processes that learn one model together: which of them this is, and what they tell each other."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import numpy as np
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from numpy.typing import NDArray
from torch import distributed

from ...nn.segmenter import Segmenter

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """Processes with a device each; those of one machine count from `local_rank` 0. One alone tells itself nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @overload
    def part(self, items: torch.Tensor) -> torch.Tensor: ...
    @overload
    def part(self, items: Sequence[T]) -> Sequence[T]: ...
    def part(self, items: Any) -> Any:
        """Items of this process: each has one in `size`, and every item has one process."""
        return items[self.rank :: self.size]

    def total(self, values: NDArray[Any]) -> NDArray[Any]:
        """Sum of the arrays of all processes."""
        if self.size == 1:
            return values
        summed = torch.from_numpy(np.array(values))
        distributed.all_reduce(summed)
        return summed.numpy()

    def gather(self, what: T) -> list[T]:
        """What each process has, in their order."""
        told = [what] * self.size
        if self.size > 1:
            distributed.all_gather_object(told, what)
        return told

    def own(self, told: Sequence[T]) -> T:
        """What this process said when they were gathered; of fewer processes than there are now, what one of them said."""
        return told[self.rank % len(told)]

    def agree(self, failure: Exception | None) -> None:
        """Go on together, or fail together.

        Raises
        ------
        Exception
            The first failure of any process, in all of them.
        """
        if self.size == 1:
            if failure:
                raise failure
            return
        if not self.total(np.array([failure is not None], np.int64)):
            return
        raise next(one for one in self.gather(failure and portable(failure)) if one)

    def strategy(self, device: torch.device, learner: Segmenter) -> dict[str, Any]:
        """Keyword arguments of a Lightning trainer: gradients are averaged over the processes."""
        if self.size == 1:
            return {"devices": 1 if device.index is None else [device.index]}
        return {
            "devices": self.local_size, "num_nodes": self.size // self.local_size, "use_distributed_sampler": False,
            "strategy": _Strategy(cluster_environment=_Environment(self), find_unused_parameters=_has_idle(learner)),
            # torch's own is for GPUs alone
            "sync_batchnorm": device.type == "cuda",
        }  # fmt: skip


ALONE = Team()


def _has_idle(learner: Segmenter) -> bool:
    """True if there are weights that no gradient reaches, such as of layers that the depth of an encoder leaves out."""
    before, (height, width) = learner.training, (2 * learner.stride,) * 2
    learner.eval()
    image = next(learner.parameters()).new_zeros(1, len(learner.bands), height, width)
    torch.stack([logits.float().sum() for logits in learner.supervised(image)]).sum().backward()  # type: ignore[no-untyped-call]
    idle = any(weight.requires_grad and weight.grad is None for weight in learner.parameters())
    learner.zero_grad()
    learner.train(before)
    return idle


def portable(failure: Exception) -> Exception:
    """Failure that arrives in another process as what it is where it can, and else as its text."""
    try:
        pickle.loads(pickle.dumps(failure))
    except Exception:  # noqa: BLE001  exceptions of other libraries need arguments that nobody kept
        return RuntimeError(f"{type(failure).__name__}: {failure}")
    return failure


class _Strategy(DDPStrategy):
    """Distributed data-parallel training in processes that are there already."""

    def _configure_launcher(self) -> None:
        """Start nothing: Lightning would refuse to in a notebook."""


class _Environment(ClusterEnvironment):
    """A team, as Lightning asks for it; its processes are connected before."""

    creates_processes_externally = True
    main_address, main_port = "", 0

    def __init__(self, team: Team) -> None:
        super().__init__()
        self._team = team

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._team.size

    def global_rank(self) -> int:
        return self._team.rank

    def local_rank(self) -> int:
        return self._team.local_rank

    def node_rank(self) -> int:
        return self._team.rank // self._team.local_size

    def set_world_size(self, size: int) -> None:
        """Keep what is known."""

    def set_global_rank(self, rank: int) -> None:
        """Keep what is known."""
