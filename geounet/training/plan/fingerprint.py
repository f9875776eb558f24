"""What a training's data and machine are like, as far as a plan follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ...core.bandtypes import BandType
from ...core.cells import Cells
from ...raster.sampler import Survey
from ...raster.sampler.memory import free_memory
from ..network.scaling import tails
from ..options import Sampling
from ..source.data import Source


@dataclass(frozen=True)
class Fingerprint:
    """What a plan follows from; the name, and the idea, are nnU-Net's [1]_.

    References
    ----------
    .. [1] F. Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation,
       Nature Methods 18, 2021.
    """

    shapes: tuple[tuple[int, int], ...]
    """Height and width of each training scene, in pixels; none where samples come ready-made."""
    class_pixels: Mapping[str, int]
    """Labelled training pixels of each class."""
    labelled_share: float
    """Part of the valid training pixels that has a label."""
    valid_share: float
    """Part of the training pixels that is valid."""
    tails: Mapping[str, float]
    """Of each continuous band, its deviation over that of its middle 90 %: 1 for a normal distribution."""
    object_side: float | None
    """Pixels along a row or column before the class changes, on average over those of the class of the largest patches;
    None where nobody counted."""
    pixel_size: float | None
    """Metres; None for images without a place."""
    device: str
    """``cpu``, ``cuda`` or ``mps``."""
    memory: int
    """Bytes that are free on the device."""
    samples: int | None = None
    """Of an epoch, where they come ready-made; None where chips are cut from scenes, as many as wished for."""

    @classmethod
    def of(cls, source: Source, seen: Survey, sampler: Sampling, device: torch.device) -> "Fingerprint":
        """Fingerprint of surveyed training data, and of the machine as it is now."""
        continuous = [name for name in source.bands if not source.types.get(name, BandType()).typed]
        ratios = dict(zip(source.bands, tails(seen.stats).tolist(), strict=True))
        labelled, ignored = int(seen.counts.counts.sum()), seen.counts.ignored
        return cls(
            shapes=tuple(cells.shape for cells in seen.cells),
            class_pixels=dict(zip(source.legend.names, seen.counts.counts.tolist(), strict=True)),
            labelled_share=labelled / max(labelled + ignored, 1),
            valid_share=seen.stats.valid_share,
            tails={name: ratios[name] for name in continuous},
            object_side=object_side(seen.cells, len(source.legend)),
            pixel_size=source.pixel_size,
            device=device.type,
            memory=_free_memory(device),
            samples=None if seen.cells else len(source.batches(seen, sampler, 1)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; of the shapes, the smallest, the median and the largest side."""
        sides = sorted(min(shape) for shape in self.shapes)
        told = {"scenes": len(sides)} | ({"sides": [sides[0], sides[len(sides) // 2], sides[-1]]} if sides else {})
        return told | {key: value for key, value in asdict(self).items() if key != "shapes"}


def object_side(cells: Sequence[Cells], classes: int) -> float | None:
    """Mean length, in pixels, of the runs of the class whose runs are longest; None without a label.

    Runs along rows and columns of cells, a cell being of a class that has more than half of it. Patches narrower than
    half a cell are not seen, and none is shorter than a cell.
    """
    lengths = [_mean_run(cells, kind) for kind in range(classes)]
    return max((length for length in lengths if length is not None), default=None)


def _mean_run(cells: Sequence[Cells], kind: int) -> float | None:
    pixels = runs = 0
    for one in cells:
        if one.classes:
            there = 2 * one.pixels(kind) > one.size**2
            for lines in (there, there.T):
                pixels += one.size * int(lines.sum())
                runs += int(lines[:, 0].sum() + (lines[:, 1:] & ~lines[:, :-1]).sum())
    return pixels / runs if runs else None


def _free_memory(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_memory()
