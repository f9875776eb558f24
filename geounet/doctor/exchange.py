"""Labels of two scenes that were exchanged, told by their content: for files that have no place on Earth, or a wrong one."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from .cases import Case, Cases
from .findings import Finding
from .registration import BOUNDARY, Fit, fit

SIDE = 256
"""Pixels of the middle of each scene that are compared."""
SURE = 5.0
"""Fit of the other's labels, in deviations of far shifts, both ways."""
DOUBTFUL = 4.0
"""Fit of a scene's own labels, in deviations of far shifts, from which nothing is looked for."""
CANDIDATES = 48
"""Scenes compared each with each, those whose labels fit least."""
MORE = 2.0
"""Times better that the other's labels fit than its own."""


def exchanged(cases: Cases, fits: Sequence[Fit]) -> Iterator[Finding]:
    """Pairs of scenes each of which is followed by the class boundaries of the other, and not by its own.

    Parameters
    ----------
    cases : Cases
    fits : sequence of Fit
        One a scene, in the order of ``cases.scenes``.
    """
    doubtful = [place for place, one in enumerate(fits) if one.boundary >= BOUNDARY and one.near < DOUBTFUL]
    doubtful = sorted(doubtful, key=lambda place: fits[place].near)[:CANDIDATES]
    looked = [(case, *_middle(case, cases.continuous)) for case in (cases.scenes[place] for place in sorted(doubtful))]
    own = [_near(image, ids, case) for case, image, ids in looked]
    for one, two in combinations(range(len(looked)), 2):
        (first, image_1, ids_1), (second, image_2, ids_2) = looked[one], looked[two]
        if ids_1.shape != ids_2.shape:
            continue
        best = _near(image_1, ids_2, first)
        if best >= max(SURE, MORE * own[one]) and _near(image_2, ids_1, second) >= max(SURE, MORE * own[two]):
            yield _finding(first, second)
            yield _finding(second, first)


def _middle(case: Case, bands: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Image, NaN where it cannot be used, and class ids in the middle of a scene."""
    scene = case.pair.scene
    height, width = (min(SIDE, side) for side in scene.grid.shape)
    top, left = ((side - part) // 2 for side, part in zip(scene.grid.shape, (height, width), strict=True))
    window = Window(left, top, width, height)
    chip = scene.read(window)
    return chip.filled(np.full(len(scene.bands), np.nan))[list(bands)], case.pair.truth.read(window)


def _near(image: NDArray[np.float32], ids: NDArray[np.integer], case: Case) -> float:
    found = fit(image, ids, len(case.pair.truth.legend))
    return found.near if found.boundary >= BOUNDARY else 0.0


def _finding(case: Case, other: Case) -> Finding:
    return Finding(
        "wrong-pair", "error", case.name,
        f"Its class boundaries do not follow the image, but those of {other.row[1]} do, and the other way round: the labels of "
        "the two scenes seem to be exchanged. Lay them over the image, and exchange them.",
        {"labels": case.row[1], "expected": other.row[1]},
    )  # fmt: skip
