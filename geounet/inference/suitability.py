"""Can this scene be what the model was trained on? Bands by name, then pixel size, then values."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from rasterio.windows import Window

from ..core.stats import BandStats
from ..errors import ModelMismatchError
from ..nn.segmenter import Segmenter
from ..raster.scene import Chip, Scene

PIXEL_SIZE_FACTOR = 4.0
"""Beyond this ratio of pixel sizes the objects a network knows have other shapes; 10 m and 30 m still pass."""
VALUE_FACTOR = 15.0
"""Beyond this ratio of bright values two scales differ. A scene all of dark water is some 5 times darker than a
mixed one; 8-bit numbers are some 30 times, reflectances of 0 to 1 are 10 000 times below reflectance × 10 000."""
UNKNOWN_CODES = 0.1
"""Beyond this part of pixels with a code that training has not seen, a categorical band may follow another key."""
PROBES = 5
"""Windows along each axis that a scene's values are looked up in."""
PROBE_SIZE = 64


def check_suitable(scene: Scene, model: Segmenter) -> list[str]:
    """Doubts about using a model on a scene, one sentence each.

    Parameters
    ----------
    scene : Scene
        With the bands that the model reads, in its order.

    Returns
    -------
    list of str
        What a person should know and that does not stop the work.

    Raises
    ------
    ModelMismatchError
        The pixel size differs more than fourfold, or the values are on another scale.
    """
    doubts = _pixel_size(scene, model)
    _values(scene, model)
    return doubts + _codes(scene, model)


def _pixel_size(scene: Scene, model: Segmenter) -> list[str]:
    wanted, found = model.info.pixel_size, scene.grid.pixel_size_m
    if wanted is None:
        return []
    if found is None:
        return [f"{scene.source} does not say its pixel size; the model was trained on pixels of {wanted:g} m."]
    ratio = found / wanted
    if not 1 / PIXEL_SIZE_FACTOR <= ratio <= PIXEL_SIZE_FACTOR:
        raise ModelMismatchError(
            f"{scene.source} has pixels of {found:.3g} m; the model was trained on {wanted:g} m, and what it learnt of "
            "shapes does not carry that far. Resample the scene (gdalwarp -tr), use a model for its pixel size, "
            "or pass --force (force=True) to go on all the same."
        )
    if abs(math.log2(ratio)) > 0.5:
        return [f"{scene.source} has pixels of {found:.3g} m; the model was trained on {wanted:g} m."]
    return []


def probe(scene: Scene) -> BandStats:
    """Statistics of some windows spread evenly over a scene, by band; no pixel is read twice."""
    stats = BandStats.empty(len(scene.bands))
    for chip in _probes(scene):
        stats += BandStats.of(chip.pixels, chip.valid)
    return stats


def _probes(scene: Scene) -> Iterator[Chip]:
    height, width = scene.grid.shape
    for row in _probed(height):
        for col in _probed(width):
            yield scene.read(Window(col, row, min(PROBE_SIZE, width - col), min(PROBE_SIZE, height - row)))


def _probed(length: int) -> list[int]:
    """Where windows along an axis start: apart from each other, or side by side where there is no room for that."""
    if length <= PROBES * PROBE_SIZE:
        return list(range(0, length, PROBE_SIZE))
    return [round(start) for start in np.linspace(0, length - PROBE_SIZE, PROBES).tolist()]


def _values(scene: Scene, model: Segmenter) -> None:
    places = [place for place, kind in enumerate(model.types) if not kind.typed]
    if not places:
        return
    if len(places) < len(model.bands):  # codes, flags and angles have no scale
        scene = scene.select([scene.bands[place] for place in places])
    known = np.array([[model.bands[place].percentiles.get(key, np.nan) for key in ("50", "99")] for place in places])
    stats = probe(scene)
    if not stats.count or not np.isfinite(known).all():
        return
    bright = stats.quantiles([0.99])[:, 0]
    comparable = (bright > 0) & (known[:, 1] > 0)
    ratios = np.log(bright[comparable] / known[comparable, 1])
    ratio = float(np.exp(np.median(ratios))) if ratios.size else 1.0
    eight_bit = scene.dtype == np.uint8 and float(np.median(known[:, 0])) > 255
    beyond_eight = scene.dtype != np.uint8 and float(known[:, 1].max()) <= 255 < 2 * 255 < float(bright.max())
    if 1 / VALUE_FACTOR <= ratio <= VALUE_FACTOR and not eight_bit and not beyond_eight:
        return
    low, high = float(stats.minimum.min()), float(stats.maximum.max())
    raise ModelMismatchError(
        f"{scene.source} holds values from {low:g} to {high:g} ({scene.dtype}), bright ones (99 %) near "
        f"{float(np.median(bright)):.3g}; the model expects {_unit(model)}, bright ones near "
        f"{float(np.median(known[:, 1])):.3g}. {_advice(ratio, eight_bit)} "
        "Or pass --force (force=True) to go on all the same."
    )


def _codes(scene: Scene, model: Segmenter) -> list[str]:
    """Doubts about categorical bands whose codes the model mostly does not know."""
    places = [place for place, kind in enumerate(model.types) if kind.kind == "categorical"]
    if not places:
        return []
    view = scene.select([scene.bands[place] for place in places])
    seen: list[Counter[float]] = [Counter() for _ in places]
    for chip in _probes(view):
        for counts, pixels in zip(seen, chip.pixels, strict=True):
            values, pixels_of = np.unique(pixels[chip.valid], return_counts=True)
            counts.update(dict(zip(values.tolist(), pixels_of.tolist(), strict=True)))
    doubts = []
    for place, counts in zip(places, seen, strict=True):
        codes = model.types[place].codes
        strange = {value: count for value, count in counts.items() if value not in codes}
        share = sum(strange.values()) / max(1, counts.total())
        if share > UNKNOWN_CODES:
            most = ", ".join(f"{value:g}" for value in sorted(strange, key=strange.__getitem__, reverse=True)[:5])
            doubts.append(
                f"{share:.0%} of the pixels looked at in {scene.bands[place]} of {scene.source} hold values that the model "
                f"has no code for (most of all {most}; it knows {', '.join(map(str, codes))}), and tell it nothing."
            )
    return doubts


def _unit(model: Segmenter) -> str:
    units = sorted({band.unit for band in model.bands if band.unit})
    return " and ".join(units) if units else "values as it was trained on"


def _advice(ratio: float, eight_bit: bool) -> str:
    if eight_bit:
        return (
            "These are 8-bit digital numbers or a picture made for the eye: "
            "use the product with calibrated values (for Landsat, Level-2 surface reflectance)."
        )
    return f"The scale differs about {max(ratio, 1 / ratio):.0f}-fold: bring the scene to the model's unit first."
