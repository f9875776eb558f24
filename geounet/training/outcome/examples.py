"""Chips for a person to look at: what the network was shown, and where it is most wrong."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.composites import shown_bands
from ...core.metrics import Confusion
from ...nn.augment import Augment
from ...nn.segmenter import Segmenter
from ..source.batches import Batches, Place
from ..source.data import Source

INPUTS, WORST, SAMPLED = 12, 10, 6
"""Chips kept of each kind."""
SIDE = 256
"""Pixels that a side of what is kept may have; larger chips are thinned."""


@dataclass(frozen=True)
class Example:
    """A chip as the network saw it, thinned to `SIDE`, in the bands that a person is shown."""

    place: Place
    """Where it was cut; augmentation may have mixed in others."""
    image: NDArray[np.float32]
    """(B, H, W), three bands or one; NaN where a band has no data."""
    valid: NDArray[np.bool_]
    """(H, W), True where any band has data, shown or not."""
    labels: NDArray[np.unsignedinteger]
    """(H, W), true class ids; the legend's `ignore_index` where there is no label."""
    predicted: NDArray[np.unsignedinteger] | None = None
    """(H, W), ids; `ignore_index` where the pixel is not valid. None for a chip of the training."""
    confusion: Confusion | None = None
    """Over all pixels of the chip."""

    @property
    def wrong(self) -> int:
        """Labelled pixels that got another class."""
        return 0 if self.confusion is None else _wrong(self.confusion)


@dataclass(frozen=True)
class Examples:
    """Chips of a run."""

    bands: tuple[str, ...]
    """Shown as red, green and blue, or the one shown in grey."""
    inputs: tuple[Example, ...]
    """The first training chips of the run, after augmentation."""
    worst: tuple[Example, ...]
    """Validation chips with the most wrong pixels, worst first; none of them without errors."""
    sampled: tuple[Example, ...]
    """Validation chips drawn by chance among those with labels, each as likely as the others; in the order of reading."""


def gather(
    source: Source,
    model: Segmenter,
    batches: Batches,
    chips: Batches,
    augment: Augment,
    *,
    seed: int,
    device: torch.device,
) -> Examples:
    """Chips of a finished training: some that it began with, the worst of validation, and a fair sample of it.

    Nothing is held but what is returned and a batch.

    Parameters
    ----------
    source : Source
        What was trained on; its types of bands tell which to show.
    model : Segmenter
        The one that is kept.
    batches, chips : Batches
        Of training and validation; their first pass is read again.
    augment : Augment
        As in training.
    seed : int
        Of the run, so that the augmentation is that of its first steps.
    device : torch.device
        Where validation chips are mapped.
    """
    typed = [name for name, kind in source.types.items() if kind.typed]
    view = _View(shown_bands(source.bands, typed), source.legend.ignore_index, source.legend.id_dtype)
    inputs = _inputs(view, batches, augment, seed)
    worst, sampled = _scored(view, model, chips, np.random.default_rng(seed), device)
    return Examples(tuple(source.bands[place] for place in view.bands), inputs, worst, sampled)


@dataclass(frozen=True)
class _View:
    """What is kept of a chip."""

    bands: tuple[int, ...]
    ignore_index: int
    dtype: np.dtype[np.unsignedinteger]

    def of(
        self,
        place: Place,
        image: Tensor,
        mask: Tensor,
        predicted: NDArray[np.int64] | None = None,
        confusion: Confusion | None = None,
    ) -> Example:
        """Chip of an image (C, H, W) and labels (H, W)."""
        step = -(-max(mask.shape) // SIDE)
        part = slice(step // 2, None, step)
        valid = torch.isfinite(image[:, part, part]).any(0).numpy()
        labels = mask[part, part].numpy().astype(self.dtype)
        if predicted is not None:
            ids = np.where(valid, predicted[part, part], self.ignore_index).astype(self.dtype)
        # a copy: a view would keep the whole batch
        pixels = image[list(self.bands)][:, part, part].numpy().copy()
        return Example(place, pixels, valid, labels, None if predicted is None else ids, confusion)


def _inputs(view: _View, batches: Batches, augment: Augment, seed: int) -> tuple[Example, ...]:
    """The first chips of the first epoch, augmented on the CPU, where chance is drawn in training too."""
    generator = torch.Generator().manual_seed(seed)
    kept: list[Example] = []
    for batch, places in batches.placed():
        image, mask = augment(batch["image"], batch["mask"], generator)
        kept += [view.of(*chip) for chip in zip(places, image, mask, strict=True)]
        if len(kept) >= INPUTS:
            break
    return tuple(kept[:INPUTS])


def _scored(
    view: _View, model: Segmenter, chips: Batches, rng: np.random.Generator, device: torch.device
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Worst validation chips, in a heap as they come, and a sample of them by a reservoir."""
    worst: list[tuple[int, int, Example]] = []
    sampled: dict[int, tuple[int, Example]] = {}
    for number, (place, image, mask, predicted, confusion) in enumerate(_mapped(model, chips, device)):
        wrong = _wrong(confusion)
        spot = number if number < SAMPLED else int(rng.integers(number + 1))
        bad = wrong > 0 and (len(worst) < WORST or wrong > worst[0][0])
        if not bad and spot >= SAMPLED:
            continue
        example = view.of(place, image, mask, predicted, confusion)
        if bad:
            push = heapq.heappush if len(worst) < WORST else heapq.heappushpop
            push(worst, (wrong, -number, example))  # of equal ones the first, and examples are never compared
        if spot < SAMPLED:
            sampled[spot] = number, example
    return (
        tuple(example for *_, example in sorted(worst, key=lambda one: one[:2], reverse=True)),
        tuple(example for _, example in sorted(sampled.values(), key=lambda one: one[0])),
    )


def _mapped(
    model: Segmenter, chips: Batches, device: torch.device
) -> Iterator[tuple[Place, Tensor, Tensor, NDArray[np.int64], Confusion]]:
    """Validation chips with labels one by one: place, image, labels, prediction, scores."""
    model = model.to(device).eval()
    classes = len(model.legend)
    try:
        for batch, places in chips.placed():
            with torch.inference_mode():
                ids: NDArray[np.int64] = model(batch["image"].to(device)).argmax(1).cpu().numpy()
            for image, mask, predicted, place in zip(batch["image"], batch["mask"], ids, places, strict=True):
                confusion = Confusion.of(mask.numpy(), predicted, classes)
                if confusion.counts.any():
                    yield place, image, mask, predicted, confusion
    finally:
        model.to("cpu")


def _wrong(confusion: Confusion) -> int:
    return int(confusion.counts.sum() - np.trace(confusion.counts))
