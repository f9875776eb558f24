"""A training planned from what its data are like: arithmetic alone, with a reason for each choice.

In the spirit of nnU-Net [1]_: what a person would settle from experience is settled by rules that can be read.

References
----------
.. [1] F. Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation,
   Nature Methods 18, 2021.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeAlias

from ...errors import ConfigError
from ...nn.extent import Extent
from ..options import UNPLANNED_CHIP, Fitting, Network, Normalisation, Sampling
from .fingerprint import Fingerprint
from .footprint import StepMemory

Cost: TypeAlias = Callable[[Network, int], StepMemory]
"""Memory of a step, told the network and the side of its chips."""

HEAVY = 2.0
"""Bands whose deviation is so many times that of their middle 90 % are heavy-tailed: reflectance of clear land has 1 to 1.5."""
CHIP = {"cpu": (64, 128), "cuda": (128, 256)}
"""Sides of chips, pixels: of equal pixels, those in small chips of many places make more steps, and teach more, as long as
a chip holds a patch of what is to be seen."""
LEAST_CHIP = 32
"""Side below which chips are not halved to fit into memory."""
SPARSE = 0.05
"""Part of the ground that has labels below which chips are smaller, as most of a large one would teach nothing."""
DEEPEST = 4
"""Poolings of the paper's network; a fifth has four times the weights."""
COARSEST = 4
"""Least side of the deepest level, in its pixels."""
WIDTH = {"cpu": 16, "cuda": 32}
FEWEST_STEPS = 20
"""Of an epoch, below which batches are smaller."""
FEWEST_CHIPS, MOST_CHIPS = 320, 4096
"""Of an epoch: 20 batches of 16, and what keeps an epoch short enough that there are some to compare."""
BATCH = {"cpu": 16, "cuda": 32}
LARGEST_BATCH = 256
"""That a search goes to."""
GIVEN = "as the config says"
SHARE = 0.5
"""Part of the free memory that a step may take; the rest is for blocks that are kept, batches read ahead, and others."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why."""

    what: str
    """Section and key of a config."""
    value: Any
    why: str
    """A sentence; of what the config states, that it does."""


@dataclass(frozen=True)
class Plan:
    """Options without ``auto``, save for what is to be measured, and how they came about."""

    sampler: Sampling
    model: Network
    training: Fitting
    choices: tuple[Choice, ...]
    largest_batch: int
    """Samples a batch that memory and the steps of an epoch allow."""
    facts: Fingerprint

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``run.json`` keeps them."""
        chosen = {choice.what: {"value": choice.value, "why": choice.why} for choice in self.choices}
        return {"choices": chosen, "fingerprint": self.facts.to_dict()}


def plan(facts: Fingerprint, sampler: Sampling, model: Network, training: Fitting, cost: Cost) -> Plan:
    """Numbers for what is ``auto``, each with its reason; what is not stays as it is.

    A batch size that is ``auto`` becomes the one to begin with; it can be searched for up to `Plan.largest_batch`.
    A learning rate stays ``auto``: it follows from trying alone.

    Parameters
    ----------
    facts : Fingerprint
    sampler, model, training
        Sections of a config.
    cost : callable
        Memory of a step, told the network (all numbers) and the side of its chips.

    Raises
    ------
    ConfigError
        No chip that a plan may choose fits into memory.
    """
    normalisation = _settled("model.normalisation", model.normalisation, lambda: _normalisation(facts))
    width = _settled("model.width", model.width, lambda: _width(facts))
    model = replace(model, normalisation=normalisation.value)
    if model.encoder_name is None:
        model = replace(model, width=width.value)
    size, depth, memory = _shape(facts, sampler, model, cost)
    side = int(size.value)
    if model.encoder_name is None:
        model = replace(model, depth=depth.value)
    chips = _settled("sampler.chips_per_epoch", sampler.chips_per_epoch, lambda: _chips(facts, side))
    count = facts.samples or (_tiles(facts, side) if chips.value is None else int(chips.value))
    roof = _largest_batch(memory, facts, count)
    batch = _settled("training.batch_size", training.batch_size, lambda: _batch(facts, memory, roof, count))
    if batch.why == GIVEN:
        batch = replace(batch, why=f"{GIVEN}; {_takes(memory, facts, int(batch.value))}")
    plain = (depth, width) if model.encoder_name is None else ()
    return Plan(
        replace(sampler, chip_size=side, chips_per_epoch=chips.value), model,
        replace(training, batch_size=batch.value),
        tuple(choice for choice in (size, chips, *plain, normalisation, batch) if choice.value is not None),
        roof, facts,
    )  # fmt: skip


def _settled(what: str, given: Any, rule: Callable[[], tuple[Any, str]]) -> Choice:
    return Choice(what, *rule()) if given == "auto" else Choice(what, given, GIVEN)


def _shape(facts: Fingerprint, sampler: Sampling, model: Network, cost: Cost) -> tuple[Choice, Choice, StepMemory]:
    """Chip size, depth and the memory that a step takes; chips are halved until one fits."""
    size = _settled("sampler.chip_size", sampler.chip_size, lambda: _chip_size(facts))
    while True:
        side = int(size.value)
        depth = _settled("model.depth", model.depth, lambda: _depth(facts, model, side))  # noqa: B023  called at once
        numbers = model if model.encoder_name else replace(model, depth=depth.value)
        memory = cost(numbers, side)
        if sampler.chip_size != "auto" or memory.fits(_budget(facts)):
            return size, depth, memory
        if side <= LEAST_CHIP:
            raise ConfigError(
                f"a step of one chip of {side} pixels takes {_bytes(memory.of(1))}, and {_bytes(facts.memory)} are free: "
                "choose a smaller model.width or model.depth, or another network."
            )
        size = Choice(size.what, side // 2, f"what fits into half of the {_bytes(facts.memory)} that are free")


def _chip_size(facts: Fingerprint) -> tuple[int, str]:
    if not facts.shapes:
        return UNPLANNED_CHIP, "samples come ready-made; what is cut for them is of this side"
    scene = int(median(min(shape) for shape in facts.shapes))
    small, large = CHIP.get(facts.device, CHIP["cpu"])
    if scene <= small:
        unit = next(unit for unit in (32, 4, 1) if scene >= unit)
        return scene // unit * unit, f"the scenes are {scene} pixels wide" + f", in multiples of {unit}" * (
            scene % unit > 0
        )
    if facts.labelled_share < SPARSE:
        return small, f"{facts.labelled_share:.1%} of the ground has labels, and larger chips hold more of the rest"
    patch = facts.object_side or 0.0
    if patch > small and scene >= large:
        return large, f"the largest patches are some {patch:.0f} pixels wide, and the scenes {scene}"
    return small, f"holds what the largest patches are wide, some {patch:.0f} pixels; the scenes are {scene} wide"


def _depth(facts: Fingerprint, model: Network, side: int) -> tuple[int, str]:
    """Halvings until the network sees a patch of the class of the largest ones, as far as chip and paper go."""
    fields = {
        depth: Extent(depth, model.upsample == "bilinear", valid=False).receptive_field
        for depth in range(1, DEEPEST + 1)
    }
    most = max((depth for depth in fields if side >> depth >= COARSEST), default=1)
    if facts.object_side is None:
        return most, f"the most that leaves {COARSEST} pixels of a chip of {side}, up to {DEEPEST}"
    wanted = next((depth for depth, field in fields.items() if field >= facts.object_side), DEEPEST)
    depth = min(wanted, most)
    why = f"sees {fields[depth]} pixels across; the largest patches are some {facts.object_side:.0f} wide"
    if most < wanted:
        why += f", but more would leave less than {COARSEST} pixels of a chip of {side}"
    elif fields[depth] < facts.object_side:
        why += f", and {DEEPEST} is the most"
    return depth, why


def _width(facts: Fingerprint) -> tuple[int, str]:
    width = WIDTH.get(facts.device, WIDTH["cpu"])
    return width, f"usual on {_device(facts)}; a step's time goes with its square"


def _normalisation(facts: Fingerprint) -> tuple[Normalisation, str]:
    heavy = {name: ratio for name, ratio in facts.tails.items() if ratio > HEAVY}
    if heavy:
        name = max(heavy, key=lambda band: heavy[band])
        return "robust", (
            f"a few extreme values make the deviation of {name} {heavy[name]:.1f} times that of its middle 90 % (limit "
            f"{HEAVY})"
        )
    ratio = max(facts.tails.values(), default=1.0)
    return "standardise", f"no band is heavy-tailed: deviations are at most {ratio:.2f} times those of the middle 90 %"


def _tiles(facts: Fingerprint, side: int) -> int:
    """Chips that tile the labelled ground, or nobody knows how many: then the fewest."""
    ground = sum(math.ceil(height / side) * math.ceil(width / side) for height, width in facts.shapes)
    return max(1, math.ceil(ground * facts.labelled_share)) if ground else FEWEST_CHIPS


def _chips(facts: Fingerprint, side: int) -> tuple[int | None, str]:
    if facts.samples:
        return None, "as many as the data set has"
    tiles = _tiles(facts, side)
    if tiles < FEWEST_CHIPS:
        return FEWEST_CHIPS, f"{tiles} tile the labelled ground; an epoch needs more to settle anything"
    if tiles > MOST_CHIPS:
        return MOST_CHIPS, f"{tiles} tile the labelled ground; epochs are kept short enough to compare some"
    return tiles, "as many as tile the labelled ground"


def _batch(facts: Fingerprint, memory: StepMemory, roof: int, chips: int) -> tuple[int, str]:
    usual = BATCH.get(facts.device, BATCH["cpu"])
    if usual <= roof:
        return usual, f"usual on {_device(facts)}; {_takes(memory, facts, usual)}"
    batch = _power_of_two(roof)
    if roof < memory.fits(_budget(facts)):
        return batch, f"leaves {math.ceil(chips / batch)} steps of an epoch of {chips} chips"
    return batch, _takes(memory, facts, batch)


def _largest_batch(memory: StepMemory, facts: Fingerprint, chips: int) -> int:
    return max(1, min(memory.fits(_budget(facts)), chips // FEWEST_STEPS, LARGEST_BATCH))


def _power_of_two(number: int) -> int:
    return 1 << number.bit_length() - 1


def _budget(facts: Fingerprint) -> float:
    return SHARE * facts.memory


def _takes(memory: StepMemory, facts: Fingerprint, batch: int) -> str:
    return f"a step takes some {_bytes(memory.of(batch))} of {_bytes(facts.memory)} that are free"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"


def _device(facts: Fingerprint) -> str:
    return "a CPU" if facts.device == "cpu" else "a GPU"
