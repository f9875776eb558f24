"""A model made ready for chips of the shapes that scenes are cut into."""

from functools import lru_cache

from ..nn import runtime
from ..nn.runtime import Forward
from ..nn.segmenter import Segmenter
from ..nn.sides import Views
from ..nn.tta import Turning

KEPT = 4
"""Shapes for which a compiled network stays."""


class Forwards:
    """A network compiled for chips of each shape that is asked for; the last few stay.

    Parameters
    ----------
    model : Segmenter
    device, backend, precision : str
        See `geounet.nn.runtime.compile`.
    tta : {'none', 'flips', 'd4'}
        Sides from which each chip is looked at.
    """

    def __init__(self, model: Segmenter, *, device: str, backend: str, precision: str, tta: Views) -> None:
        def compiled(shape: tuple[int, int]) -> Forward:
            return runtime.compile(model, shape, device=device, backend=backend, precision=precision)

        self._compile = lru_cache(maxsize=KEPT)(compiled)
        self._tta = tta

    def __call__(self, shape: tuple[int, int]) -> Forward:
        """Compile for chips of `shape` (height, width), unless that was done."""
        upright = self._compile(shape)
        if self._tta == "none":
            return upright
        return Turning(upright, self._compile(shape[::-1]) if self._tta == "d4" else upright, self._tta)
