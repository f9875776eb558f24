"""Made-up land as a satellite would see it: classes, then reflectance.

Nothing here is measured. Spectra are typical values of common surfaces, rounded from textbook curves; the rest is
fractal noise, parcels, a meandering river and street grids. Everything follows from the generator that is handed in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import LineString

from ..core.legend import Legend

Field: TypeAlias = NDArray[np.float32]
"""One value a pixel, (H, W)."""

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
SCALE = 10_000
"""Stored integers a unit of reflectance."""
NODATA = -9999
LEGEND = Legend.of({1: "water", 2: "forest", 3: "crop", 4: "bare", 5: "built"})
WATER, FOREST, CROP, BARE, BUILT = range(5)

SURFACES: Mapping[str, tuple[float, ...]] = {
    "clear water": (0.040, 0.040, 0.026, 0.016, 0.010, 0.008),
    "turbid water": (0.062, 0.085, 0.078, 0.042, 0.018, 0.013),
    "conifers": (0.020, 0.036, 0.024, 0.210, 0.095, 0.042),
    "broadleaves": (0.024, 0.052, 0.029, 0.370, 0.170, 0.075),
    "green crop": (0.030, 0.072, 0.036, 0.450, 0.200, 0.098),
    "grass": (0.038, 0.080, 0.055, 0.330, 0.230, 0.120),
    "ripe crop": (0.070, 0.110, 0.130, 0.300, 0.310, 0.200),
    "stubble": (0.092, 0.132, 0.172, 0.270, 0.360, 0.265),
    "ploughed soil": (0.068, 0.092, 0.118, 0.180, 0.255, 0.215),
    "rock": (0.095, 0.118, 0.142, 0.175, 0.215, 0.195),
    "dry soil": (0.090, 0.128, 0.180, 0.250, 0.345, 0.300),
    "sand": (0.170, 0.225, 0.275, 0.330, 0.390, 0.350),
    "asphalt": (0.075, 0.084, 0.092, 0.112, 0.128, 0.118),
    "tiles": (0.088, 0.112, 0.172, 0.215, 0.245, 0.215),
    "concrete": (0.170, 0.190, 0.208, 0.232, 0.255, 0.240),
}
"""Typical surface reflectance, 0 to 1, in the order of `BANDS`."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What differs between two days over alike land."""

    season: float = 0.0
    """0 when most crops are green, 1 when most are ripe, cut or ploughed."""
    haze: float = 0.01
    """Light scattered into the blue band by the air at the hazy end of the scene, reflectance."""
    sun_azimuth: float = 145.0
    """Degrees clockwise from north."""
    relief: float = 1.0
    """How strongly slopes are lit or shaded; low with a high sun."""
    noise: float = 0.002
    """Standard deviation of the sensor's noise, reflectance."""


@dataclass(frozen=True)
class Land:
    """What lies on the ground."""

    ids: NDArray[np.uint8]
    """Class of each pixel, (H, W)."""
    height: Field
    """Relief, of deviation 1."""
    river: NDArray[np.bool_]
    parcels: NDArray[np.int64]
    """Number of the parcel each pixel belongs to, from 0; also under forest and town."""
    along: Field
    """Distance across the rows that a parcel is tilled in, pixels."""
    streets: Field
    """Share of each pixel that is street, were it in a town."""


def noise(shape: tuple[int, int], rng: np.random.Generator, *, beta: float = 2.5, scale: float | None = None) -> Field:
    """Fractal noise (H, W) of mean 0 and deviation 1, its power falling as frequency to the ``-beta``.

    With `scale`, in pixels, structures larger than it do not grow any stronger.
    """
    pad = tuple(int(1.25 * n) for n in shape)  # Fourier noise is periodic: one border must not know the other
    fy, fx = np.fft.fftfreq(pad[0])[:, None], np.fft.rfftfreq(pad[1])[None, :]
    floor = 1 / (scale or max(pad))
    power = (fy**2 + fx**2 + floor**2) ** (-beta / 4)
    power[0, 0] = 0
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(pad)) * power, s=pad)[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def blur(field: NDArray[Any], sigma: float) -> Field:
    """Gaussian blur of the last two axes, `sigma` in pixels; borders are mirrored."""
    pad = int(np.ceil(3 * sigma))
    mirrored = np.pad(field, [(0, 0)] * (field.ndim - 2) + [(pad, pad)] * 2, mode="symmetric")
    height, width = mirrored.shape[-2:]
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    response = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    out = np.fft.irfft2(np.fft.rfft2(mirrored) * response, s=(height, width))
    return out[..., pad : height - pad, pad : width - pad].astype(np.float32)


def land(shape: tuple[int, int], rng: np.random.Generator) -> Land:
    """Hills and a valley, with all five classes of `LEGEND`.

    Parameters
    ----------
    shape : tuple of int
        Height and width in pixels; structures are sized for pixels of 10 m.
    rng : numpy.random.Generator
        The only source of chance: equal states give equal land.
    """
    river = _river(shape, rng)
    valley = blur(river, 45)
    valley /= valley.max()
    height = noise(shape, rng, beta=3.2, scale=260) - 1.6 * valley
    height = (height - height.mean()) / height.std()
    parcels, along = _parcels(shape, rng)

    wooded = height + 1.1 * noise(shape, rng, beta=2.6, scale=110)
    wooded = blur(0.4 * wooded + 0.6 * _mean_by(parcels, wooded), 1.2)  # woods mostly end where parcels do
    ids = np.where(wooded > np.quantile(wooded, 0.60), FOREST, CROP).astype(np.uint8)

    rugged = blur(height + 0.7 * noise(shape, rng, beta=2.4, scale=70), 1.5)
    ids[rugged > np.quantile(rugged, 0.945)] = BARE
    worn = blur(noise(shape, rng, beta=2.8, scale=45) - 0.8 * valley, 1.5)
    ids[(worn > np.quantile(worn, 0.98)) & (ids != FOREST)] = BARE

    town, streets = _towns(shape, river, valley, rng)
    ids[town] = BUILT
    near = blur(river, 4)
    ids[(near > 0.12) & (noise(shape, rng, beta=2.8, scale=50) > 0.8)] = BARE  # gravel bars
    hollow = blur(-height + 0.9 * noise(shape, rng, beta=3.4, scale=80), 2)
    ids[(hollow > np.quantile(hollow, 0.975)) & ~town] = WATER
    ids[river] = WATER
    return Land(ids, height, river, parcels, along, streets)


def reflectance(ground: Land, rng: np.random.Generator, when: Conditions) -> NDArray[np.float32]:
    """Reflectance at the sensor, (band, y, x) in the order of `BANDS`, 0 to about 1, mixed at borders."""
    shape = ground.ids.shape
    surface = np.zeros((len(BANDS), *shape), np.float32)
    for class_, paint in {WATER: _water, FOREST: _forest, CROP: _crop, BARE: _bare, BUILT: _built}.items():
        surface[:, ground.ids == class_] = paint(ground, rng, when)[:, ground.ids == class_]
    lit = _shading(ground.height, when)
    surface *= np.where(ground.ids == WATER, 1, lit)
    surface *= 1 + 0.03 * noise(shape, rng, beta=2.0)  # patchiness that all bands share
    surface = blur(surface, 0.7)  # the sensor's point spread: pixels at borders are mixed
    scatter = np.array([0.49, 0.56, 0.66, 0.84, 1.61, 2.2], np.float32) / 0.49
    ramp = np.linspace(0, 1, shape[1], dtype=np.float32) + 0.25 * noise(shape, rng, beta=3.5)
    veil = when.haze * np.clip(ramp, 0, 1.5) * scatter[:, None, None] ** -1.6
    seen = surface * (1 - 2 * veil) + veil + when.noise * rng.standard_normal(surface.shape, np.float32)
    return np.asarray(seen, np.float32)


def stored(image: NDArray[np.float32], outside: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Reflectance as products store it: int16, × `SCALE`, `NODATA` where the swath does not reach."""
    counts = np.clip(np.rint(image * SCALE), 1, 16_000).astype(np.int16)
    counts[:, outside] = NODATA
    return counts


def beyond_swath(shape: tuple[int, int], share: float, *, east: bool) -> NDArray[np.bool_]:
    """True in the wedge left of (or, to the east, right of) the swath's slanted edge; `share` of the width at the top.

    Satellites cross the equator at a slant, so that the edge of a swath is some 13 degrees off north.
    """
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    from_edge = shape[1] - 1 - cols if east else cols
    steps = rows // 24 * 24  # detectors end one after the other: the edge is a stair
    return np.asarray(from_edge < share * shape[1] - np.tan(np.radians(13)) * steps)


def _river(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A river from north to south, a sine-generated curve (Langbein and Leopold, USGS PP 422-H, 1966)."""
    height, width = shape
    length = 3 * (height + width)
    way = np.arange(length, dtype=float)
    wander = np.cumsum(rng.standard_normal(length)) * 0.06
    swing = 1.2 + 0.45 * np.sin(2 * np.pi * way / rng.uniform(500, 800) + rng.uniform(0, 6))
    angle = swing * np.sin(2 * np.pi * way / rng.uniform(170, 230) + rng.uniform(0, 6) + wander)
    angle += rng.uniform(-0.3, 0.3)
    x = np.cumsum(np.sin(angle)) + width * rng.uniform(0.35, 0.6)
    y = np.cumsum(np.cos(angle)) - 60
    course = LineString(np.column_stack([x, y])[::4])
    drawn = rasterize([course.buffer(rng.uniform(4.5, 6.0))], out_shape=shape, dtype="uint8")
    wide = blur(drawn, 2.5) + 0.10 * noise(shape, rng, beta=2.2, scale=30)
    return np.asarray((wide > 0.5) & (blur(drawn, 2.5) > 0.15))


def _parcels(shape: tuple[int, int], rng: np.random.Generator) -> tuple[NDArray[np.int64], Field]:
    """Parcel number of each pixel, and the distance across its tilled rows.

    Districts are the cells of scattered points; each has a direction of its own, and is cut into strips of uneven
    width, and each strip into parcels of uneven length.
    """
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    count = max(3, round(shape[0] * shape[1] / 120**2))
    centre = rng.uniform(0, 1, (count, 2)) * shape
    bent = 14 * noise(shape, rng, beta=3.0, scale=120), 14 * noise(shape, rng, beta=3.0, scale=120)
    district = np.zeros(shape, np.int64)
    nearest = np.full(shape, np.inf, np.float32)
    for index, (y, x) in enumerate(centre):
        away = (rows + bent[0] - y) ** 2 + (cols + bent[1] - x) ** 2
        district[away < nearest] = index
        nearest = np.minimum(nearest, away)
    turn = rng.uniform(-np.pi / 2, np.pi / 2, count)[district]
    across = (cols * np.cos(turn) + rows * np.sin(turn)).astype(np.float32)
    down = (-cols * np.sin(turn) + rows * np.cos(turn)).astype(np.float32)
    reach = float(sum(shape))
    strip_edges = np.cumsum(rng.uniform(12, 34, int(2 * reach / 12))) - reach
    strip = np.searchsorted(strip_edges, across)
    lengths = rng.uniform(26, 62, len(strip_edges) + 1)  # of parcels, one a strip
    parcel = np.floor((down + reach) / lengths[strip]).astype(np.int64)
    key = (district * (len(strip_edges) + 1) + strip) * int(reach) + parcel
    return np.unique(key, return_inverse=True)[1].reshape(shape), across


def _towns(
    shape: tuple[int, int], river: NDArray[np.bool_], valley: Field, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Field]:
    """True inside towns, most of them in the valley, and the share of street in each pixel."""
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    count = max(2, round(shape[0] * shape[1] / 190**2))
    likely = (np.where(river, 0, 0.08 + np.clip(valley, 0, 1)) ** 1.5).ravel().astype(float)
    places = rng.choice(likely.size, count, replace=False, p=likely / likely.sum())
    density = np.full(shape, -np.inf, np.float32)
    streets = np.zeros(shape, np.float32)
    for place in places:
        y, x = divmod(int(place), shape[1])
        turn, radius, block = rng.uniform(0, np.pi / 2), rng.uniform(14, 46), rng.uniform(7, 11)
        u = (cols - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        v = -(cols - x) * np.sin(turn) + (rows - y) * np.cos(turn)
        here = 1 - np.hypot(u, 1.25 * v) / radius
        grid = np.maximum(_line(u, block, 1.3), _line(v, 1.6 * block, 1.3))
        streets = np.where(here > density, np.maximum(grid, _line(u, 1e6, 2.6)), streets)
        density = np.maximum(density, here)
    edge = blur(density, 1) + 0.22 * blur(noise(shape, rng, beta=2.4, scale=25), 1.2)
    return np.asarray((edge > 0) & ~river), streets.astype(np.float32)


def _line(distance: Field, period: float, width: float) -> Field:
    """Share of a pixel under lines `width` wide at every `period`, anti-aliased; all in pixels."""
    off = np.abs((distance + period / 2) % period - period / 2)
    return np.asarray(np.clip((width + 1) / 2 - off, 0, 1), np.float32)


def _mean_by(groups: NDArray[np.int64], values: Field) -> Field:
    flat = groups.ravel()
    count = np.bincount(flat)
    return (np.bincount(flat, values.ravel()) / count)[groups].astype(np.float32)


def _mix(share: Field, one: str, other: str) -> NDArray[np.float32]:
    """Spectra (band, y, x), `share` of the pixel being `other` and the rest `one`."""
    a, b = (np.array(SURFACES[name], np.float32)[:, None, None] for name in (one, other))
    return a + np.clip(share, 0, 1) * (b - a)


def _cover(base: NDArray[np.float32], share: Field, name: str) -> NDArray[np.float32]:
    """Lay a surface over `share` of each pixel."""
    top = np.array(SURFACES[name], np.float32)[:, None, None]
    return base + np.clip(share, 0, 1) * (top - base)


def _shading(height: Field, when: Conditions) -> Field:
    """Light on each slope against level ground."""
    south, east = np.gradient(blur(height, 1.5))
    azimuth = np.radians(when.sun_azimuth)
    towards = np.cos(azimuth) * south - np.sin(azimuth) * east  # slopes that face the sun fall towards it
    return np.asarray(np.clip(1 + 2.2 * when.relief * towards, 0.55, 1.4), np.float32)


def _water(ground: Land, rng: np.random.Generator, when: Conditions) -> NDArray[np.float32]:  # noqa: ARG001
    load = 0.8 * blur(ground.river, 3) + 0.15 * noise(ground.ids.shape, rng, beta=3.0, scale=90)
    return _mix(load, "clear water", "turbid water")


def _forest(ground: Land, rng: np.random.Generator, when: Conditions) -> NDArray[np.float32]:
    shape = ground.ids.shape
    stands = 0.5 + 0.1 * when.season + 0.45 * noise(shape, rng, beta=2.8, scale=60) - 0.15 * ground.height
    crowns = 1 + 0.16 * noise(shape, rng, beta=1.0, scale=4)
    clearings = 1.2 * noise(shape, rng, beta=2.2, scale=20) - 2.2
    return _cover(_mix(stands, "conifers", "broadleaves") * crowns, clearings, "grass")


def _crop(ground: Land, rng: np.random.Generator, when: Conditions) -> NDArray[np.float32]:
    """Each parcel at its own stage: green, ripe, cut or ploughed, some of it meadow, with rows and poor patches."""
    shape, count = ground.ids.shape, int(ground.parcels.max()) + 1
    stages = ("green crop", "grass", "ripe crop", "stubble", "ploughed soil")
    early, late = np.array([0.42, 0.26, 0.16, 0.07, 0.09]), np.array([0.24, 0.22, 0.26, 0.16, 0.12])
    odds = early + when.season * (late - early)
    kind = rng.choice(len(stages), count, p=odds / odds.sum())
    spectra = np.array([SURFACES[name] for name in stages], np.float32)[kind]
    onward = np.array([SURFACES[name] for name in ("grass", "ripe crop", "stubble", "ploughed soil", "dry soil")])[kind]
    spectra += rng.uniform(0, 0.45, (count, 1)).astype(np.float32) * (onward - spectra)  # on the way to the next stage
    spectra *= rng.normal(1, 0.07, (count, 1)).astype(np.float32)
    image = np.moveaxis(spectra[ground.parcels], -1, 0)
    rows = 1 + 0.035 * np.sin(2 * np.pi * ground.along / 3.1) + 0.03 * noise(shape, rng, beta=1.6, scale=12)
    poor = 0.16 * noise(shape, rng, beta=2.6, scale=30) - 0.1
    here = ground.parcels
    border = np.zeros(shape, np.float32)
    border[:-1] += here[:-1] != here[1:]
    border[:, :-1] += here[:, :-1] != here[:, 1:]
    hedges = np.where(noise(shape, rng, beta=2.5, scale=60) > -0.2, 0.55 * np.minimum(border, 1), 0).astype(np.float32)
    return _cover(_cover(image * rows, poor, "ploughed soil"), hedges, "broadleaves")


def _bare(ground: Land, rng: np.random.Generator, when: Conditions) -> NDArray[np.float32]:
    shape = ground.ids.shape
    base = _mix(0.5 + 0.4 * noise(shape, rng, beta=2.4, scale=50) - 0.3 * ground.height, "rock", "dry soil")
    base = _cover(base, 1.6 * blur(ground.river, 5) - 0.05 + 0.1 * noise(shape, rng, beta=2), "sand")
    base = _cover(base, 0.22 * noise(shape, rng, beta=1.8, scale=14) - 0.1 - 0.05 * when.season, "grass")
    return base * (1 + 0.06 * noise(shape, rng, beta=1.4, scale=8))


def _built(ground: Land, rng: np.random.Generator, when: Conditions) -> NDArray[np.float32]:  # noqa: ARG001
    """Roofs and gardens between streets; here and there a hall with a bright roof."""
    shape = ground.ids.shape
    houses = np.kron(rng.random((shape[0] // 2 + 1, shape[1] // 2 + 1)), np.ones((2, 2)))[: shape[0], : shape[1]]
    halls = noise(shape, rng, beta=2.2, scale=14) - 1.4
    gardens = 0.30 + 0.25 * noise(shape, rng, beta=1.2, scale=5)
    base = _mix(((houses - 0.35) * 2).astype(np.float32), "tiles", "concrete")
    base = _cover(_cover(base, gardens, "grass"), 2 * halls, "concrete")
    return _cover(base * (1 + 0.1 * noise(shape, rng, beta=0.6, scale=3)), 0.85 * ground.streets, "asphalt")
