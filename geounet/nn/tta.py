"""Test-time augmentation: what a network holds for likely, whichever way up it is shown the ground."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .runtime import Forward, Scores
from .sides import SIDES, Views, seen_back, seen_from

Array: TypeAlias = Any


def check_views(views: str) -> None:
    """Refuse a name that is not in `SIDES`.

    Raises
    ------
    ConfigError
        Saying which are.
    """
    if views not in SIDES:
        raise ConfigError(f"tta is one of {', '.join(SIDES)}, not {views!r}.")


def mean_over_sides(answer: Callable[[Array], Array], images: Array, views: Views) -> Array:
    """Mean of the probabilities (N, K, H, W) that images (N, C, H, W) get from several sides, each turned back.

    Parameters
    ----------
    answer : callable
        Probabilities (N, K, h, w) of images (N, C, h, w), of which it keeps neither; for ``d4`` it is shown images of
        both W × H and H × W pixels.
    images : array
        Of NumPy or torch.
    views : {'none', 'flips', 'd4'}
        See `SIDES`.
    """
    sides = SIDES[views]
    total = answer(images)
    for side in sides[1:]:
        total += seen_back(answer(seen_from(images, side)), side)
    total /= len(sides)
    return total


class Turning:
    """A network made ready for this machine that looks at each chip from several sides and averages probabilities.

    With ``d4`` the answer to a chip that is turned or flipped is the answer turned or flipped alike, up to the rounding of
    sums, whatever the network has learnt of how ground lies. It takes 4 times (``flips``) or 8 times (``d4``) as long as
    one look, and no more memory to speak of, as the sides are looked at one after the other.

    Parameters
    ----------
    upright : Forward
        Compiled for chips as they come, and for probabilities.
    sideways : Forward
        Compiled for chips with rows for columns; the same one where they are square.
    views : {'flips', 'd4'}
    """

    def __init__(self, upright: Forward, sideways: Forward, views: Views) -> None:
        check_views(views)
        self._upright, self._sideways, self._views = upright, sideways, views
        self.streams, self.device = upright.streams, upright.device
        self.backend, self.precision = upright.backend, upright.precision

    def __call__(self, batch: NDArray[np.float32]) -> Scores:
        """Probabilities as `Forward` has them, the mean over the sides."""

        def answer(images: Array) -> Array:
            stands = images.shape[-2:] == batch.shape[-2:]
            return (self._upright if stands else self._sideways)(images)

        scores: Scores = mean_over_sides(answer, batch, self._views)
        return scores
