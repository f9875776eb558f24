"""What a sampler is given and gives: scenes with labels, windows, batches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.bands import locate
from ...core.grid import common_grid
from ...errors import BandMismatchError, LabelError
from ..labels import Labels
from ..scene import Scene

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A scene and its labels, on one grid; or a scene alone.

    Raises
    ------
    GridError
        The labels were opened for another grid.
    """

    scene: Scene
    labels: Labels | None = None
    """None for a scene without labels: its batches have no mask."""
    group: str = field(default="")
    """Scenes of one group share ground, or a date; they are drawn as one and never split."""

    def __post_init__(self) -> None:
        if self.labels is not None:
            common_grid([(self.scene.source, self.scene.grid), (self.labels.source, self.labels.grid)])

    @property
    def truth(self) -> Labels:
        """The labels, where there is no doing without them.

        Raises
        ------
        LabelError
            The pair has none.
        """
        if self.labels is None:
            raise LabelError(
                f"{self.scene.source} has no labels, and learning and scoring need them; give it labels, or leave it out."
            )
        return self.labels


def check_bands(pairs: Sequence[Pair]) -> None:
    """Refuse scenes whose pixels cannot lie in one array: band by band they hold the same light.

    Raises
    ------
    BandMismatchError
        A scene has other bands than the first, or the same in another order.
    """
    for pair in pairs:
        first, scene = pairs[0].scene, pair.scene
        alike = locate(first.bands, scene.bands) == [*range(len(scene.bands))]  # nir08 may stand in for nir
        if scene.bands != first.bands and not (alike and len(first.bands) == len(scene.bands)):
            raise BandMismatchError(
                f"{scene.source} has the bands {', '.join(scene.bands)}, but {first.source} {', '.join(first.bands)}; "
                "scenes that are read together have the same in the same order. Select them from each by name."
            )


class Sample(NamedTuple):
    """Where to cut a chip: the place of its scene in the list, and the window."""

    scene: int
    window: Window


@dataclass(frozen=True)
class Batch:
    """Chips and their labels, stacked."""

    image: NDArray[np.float32]
    """(N, C, H, W), values as stored in the scenes; NaN where a pixel cannot be used."""
    mask: NDArray[np.int64] | None = None
    """(N, H, W), true class ids; the legend's `ignore_index` where there is no label, or no valid pixel. None if no
    scene of the plan's list has labels."""
    samples: tuple[Sample, ...] = ()
    """Where each chip was cut, (N,)."""


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last perhaps shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
