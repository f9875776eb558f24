"""What a config leaves open is settled before anything is learnt: by a plan, and by trying on a network thrown away."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import torch
from pydantic import TypeAdapter
from torch import Tensor

from ...nn.encoders import parameter_groups
from ...nn.runtime import find_device
from ...raster.sampler import Survey
from ..epochs.task import Task
from ..network.building import bands_of, features_of, learner, network_of
from ..options import Augmentation, Card, Fitting, Loss, Network, Sampling
from ..seeding import seeded
from ..source.batches import Batches, Tensors
from ..source.data import Source
from ..together.sharing import cache_of_one
from .finders import BatchSearch, RateSearch, Search, find_batch_size, find_learning_rate, rates_between, sizes_up_to
from .fingerprint import Fingerprint
from .footprint import StepMemory, step_memory
from .planning import Choice, Plan, plan

S = TypeVar("S", Sampling, Network, Fitting)
Planned: TypeAlias = Callable[[Plan], None]
USUAL = 16
"""Samples a batch where nothing can be measured."""
STOCK = 8
"""Samples read to measure speeds with; larger batches hold them several times."""
REPEATS = 3
"""Steps timed of each batch size, after one that is not."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SEARCHED = {BatchSearch: "training.batch_size", RateSearch: "training.learning_rate"}


@dataclass(frozen=True)
class Settled:
    """Options that are numbers throughout, and how they came about."""

    sampler: Sampling
    model: Network
    training: Fitting
    plan: Plan
    """With what was found by trying in place of what it began with."""
    searches: tuple[Search, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, of which `remembered` makes the same."""
        plain: dict[str, Any] = TypeAdapter(Settled).dump_python(self, mode="json")
        return plain


def remembered(told: Mapping[str, Any], sampler: Sampling, model: Network, training: Fitting) -> Settled:
    """What was settled before, from its plain values, for sections that leave open what they left open then."""
    kept = TypeAdapter(Settled).validate_python(told)
    # codes are text in JSON: what is stated is taken from where it is stated
    return replace(
        kept,
        sampler=_filled(sampler, kept.sampler),
        model=_filled(model, kept.model),
        training=_filled(training, kept.training),
    )


def _filled(asked: S, then: S) -> S:
    """A section, with what it leaves open from another."""
    return replace(asked, **{key: getattr(then, key) for key, value in vars(asked).items() if value == "auto"})


def planned(source: Source, sampler: Sampling, model: Network, training: Fitting, seen: Survey | None = None) -> Plan:
    """What would be chosen for a training; only the survey reads pixels, and nothing is tried.

    Parameters
    ----------
    source : Source
    sampler, model, training
        Sections of a config.
    seen : Survey, optional
        Of the training pixels; by default they are surveyed.

    Raises
    ------
    ConfigError
        As `planning.plan`.
    DeviceError
        There is no such device.
    """
    seen = source.survey(sampler) if seen is None else seen
    facts = Fingerprint.of(source, seen, sampler, find_device(training.device))
    return plan(facts, sampler, model, training, lambda network, side: _cost(source, seen, network, side))


def settle(
    source: Source,
    seen: Survey,
    device: torch.device,
    precision: str,
    *,
    sampler: Sampling,
    model: Network,
    loss: Loss,
    augment: Augmentation,
    training: Fitting,
    card: Card,
    devices: int = 1,
    processes: int = 1,
    tell: Planned | None = None,
) -> Settled:
    """Options of a training as numbers; what is tried for them leaves no trace, in torch's chance or elsewhere.

    Parameters
    ----------
    source : Source
    seen : Survey
        Of its training pixels.
    device : torch.device
    precision : str
        Of the network's products, as `torch_precision` has it.
    sampler, model, loss, augment, training, card
        Sections of a config.
    devices : int
        Processes of this machine that learn together, and share its memory.
    processes : int
        Of all machines, each of which takes a sample of a batch at least.
    tell : callable, optional
        Told the plan, before anything is tried.
    """
    chosen = planned(source, sampler, model, training, seen)
    if tell:
        tell(chosen)
    sampler, model = chosen.sampler, chosen.model
    searches: list[Search] = []

    @contextmanager
    def trial(batch_size: int) -> Iterator["_Trial"]:
        fitting = replace(training, batch_size=batch_size, learning_rate=1.0, accumulate=1, compile=False, ema=0.0)
        with seeded(sampler.seed, device):
            batches = source.batches(seen, cache_of_one(sampler, devices), batch_size)
            task = learner(
                source,
                seen,
                batches,
                sampler=sampler,
                model=model,
                loss=loss,
                augment=augment,
                training=fitting,
                card=card,
            )
            yield _Trial(task, batches, device, precision)

    fitting = chosen.training
    if training.batch_size == "auto":
        with trial(min(STOCK, chosen.largest_batch)) as one:
            sizes = _search_batch(one, sizes_up_to(chosen.largest_batch, processes))
        searches.append(sizes)
        fitting = replace(fitting, batch_size=sizes.chosen)
    if training.learning_rate == "auto":
        with trial(fitting.batch) as one:
            rates = find_learning_rate(one.step_at, rates_between())
        searches.append(rates)
        fitting = replace(fitting, learning_rate=rates.chosen)
    found = {SEARCHED[type(search)]: Choice(SEARCHED[type(search)], search.chosen, search.why) for search in searches}
    choices = {choice.what: choice for choice in chosen.choices} | found
    final = replace(chosen, training=fitting, choices=tuple(choices.values()))
    return Settled(sampler, model, fitting, final, tuple(searches))


def _cost(source: Source, seen: Survey, model: Network, side: int) -> StepMemory:
    """Memory of a step, from a network without values."""
    bands = bands_of(source, seen, model, Card())
    features = features_of(model, bands, seen)
    with torch.random.fork_rng([]), torch.device("meta"):
        network = network_of(replace(model, encoder_weights=None), bands, features, len(source.legend))
    return step_memory(network, features.channels([band.type for band in bands]), len(source.legend), side)


class _Trial:
    """Steps of a training that is thrown away."""

    def __init__(self, task: Task, batches: Batches, device: torch.device, precision: str) -> None:
        self._task = task.to(device).train()
        self._batches = _labelled(batches, task.legend.ignore_index)
        self._device, self._type = device, TYPES[precision]
        groups = parameter_groups(
            task.segmenter, 1.0, task.fitting.weight_decay, encoder_lr_factor=task.encoder_lr_factor
        )
        self._factors = [group["lr"] for group in groups]
        self._optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=task.fitting.weight_decay)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def batch(self) -> Tensors | None:
        """Next batch with a label, on the device; None if there is none."""
        batch = next(self._batches, None)
        return batch and {name: value.to(self._device) for name, value in batch.items()}

    def step_at(self, rate: float) -> float:
        """Make a step on the next batch, and return the loss before it; NaN if there is no batch with a label."""
        batch = self.batch()
        return float(self.step(batch, rate)) if batch else float("nan")

    def step(self, batch: Mapping[str, Tensor], rate: float) -> Tensor:
        """Make a step on a batch, as training makes it, and return the loss before it."""
        for group, factor in zip(self._optimizer.param_groups, self._factors, strict=True):
            group["lr"] = rate * factor
        self._optimizer.zero_grad()
        with torch.autocast(self._device.type, self._type, enabled=self._type != torch.float32):
            loss = self._task.training_step(batch, 0)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        if self._task.fitting.clip:
            torch.nn.utils.clip_grad_norm_(self._task.segmenter.parameters(), self._task.fitting.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()

    def seconds(self, stock: Mapping[str, Tensor], size: int) -> float:
        """Shortest time of a step on so many samples of a stock, at a rate that moves nothing."""
        places = torch.arange(size, device=self._device) % len(stock["image"])
        batch = {name: value[places] for name, value in stock.items()}
        times = []
        for _ in range(1 + REPEATS):
            began = time.perf_counter()
            float(self.step(batch, 0.0))  # asking for the value waits for a GPU
            times.append(time.perf_counter() - began)
        return min(times[1:])


def _search_batch(trial: _Trial, sizes: Sequence[int]) -> BatchSearch:
    stock = trial.batch()
    if stock is None:  # surveyed, so there are labels; chips without any are drawn by chance
        usual = max((size for size in sizes if size <= USUAL), default=sizes[0])
        return BatchSearch((), (), None, usual, "no chip drawn had a label to measure with")
    try:
        return find_batch_size(lambda size: trial.seconds(stock, size), sizes)
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _labelled(batches: Batches, ignore: int) -> Iterator[Tensors]:
    """Batches with a label, pass after pass, as long as a pass has some."""
    found = True
    while found:
        found = False
        for batch in batches:
            if (batch["mask"] != ignore).any():
                found = True
                yield batch
