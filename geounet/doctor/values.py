"""Bands that say nothing, nodata that nobody declared, scenes on another scale."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.stats import BandStats
from .cases import Case, Cases
from .findings import Finding
from .samples import Samples

FILLS = (-99.0, -999.0, -9999.0, -99999.0, -32768.0, 32767.0, 65535.0, 1e20, 9.969209968386869e36)
"""Values that usually stand for no data: those of GDAL's users, ends of 16-bit types, CMIP's and netCDF's."""
FLOAT_END = 1e30
"""Magnitudes beyond this are no measurement: the ends of float32 (3.4e38) and float64 stand for no data."""
FILL_GAP = 0.5
"""A usual fill lies this far outside the 0.1–99.9 % range of all other pixels, in widths of it; nearer, it may be
measured."""
GAP = 10.0
"""Any other value that lies so many widths outside is suspected; saturated sensors and glint stay below three."""
CONSTANT = 0.999
"""Share of valid pixels with one value from which a band says nothing."""
FLAT = 1e-6
"""Deviation of a band over its mean below which float32 holds little but rounding."""
EMPTY = 1e-3
"""Share of valid pixels that are 0 in all bands from which these look like padding, not like black ground."""
SCALE = 10.0
"""Ratio between scenes, median over bands, from which their units differ: light and season change less."""


class _Outlier(NamedTuple):
    """A value that stands apart from those of its band."""

    value: float
    share: float
    """Of the valid pixels."""
    usual: bool
    """True if it often stands for no data."""


def constant(cases: Cases, samples: Samples) -> Iterator[Finding]:
    """Bands that have one value, or nearly: in all scenes, or in some."""
    if not cases.all:
        return
    pooled = sum((case.survey.stats for case in cases.scenes), BandStats.empty(len(cases.bands)))
    for band, name in enumerate(cases.bands):
        if _is_constant(pooled, band, samples.values(band)):
            yield Finding(
                "constant-band", "warning", name,
                f"It is {pooled.mean[band]:g} on nearly all pixels of all scenes, so nothing can be learnt from it. Leave it "
                "out (scenes.bands), or look at how it was made.",
                {"band": name, "mean": float(pooled.mean[band]), "std": float(pooled.std[band])},
            )  # fmt: skip
        elif band in cases.continuous:
            yield from _constant_scenes(cases, samples, band)


def _constant_scenes(cases: Cases, samples: Samples, band: int) -> Iterator[Finding]:
    name = cases.bands[band]
    for case in cases.scenes:
        stats = case.survey.stats
        if stats.count and _is_constant(stats, band, samples.values(band, case.row)):
            yield Finding(
                "constant-band", "warning", case.name,
                f"Its band {name} is {stats.mean[band]:g} on nearly all valid pixels, while it varies in other scenes. Make "
                "the band again, declare the value as nodata, or leave the scene out.",
                {"band": name, "mean": float(stats.mean[band]), "std": float(stats.std[band])},
            )  # fmt: skip


def _is_constant(stats: BandStats, band: int, values: NDArray[np.float32]) -> bool:
    """True if a band has one value on nearly all pixels: by its counts, and exactly on those drawn."""
    if not stats.count:
        return False
    if stats.std[band] <= FLAT * abs(stats.mean[band]):
        return True
    if max(stats.sketch[band].values()) < CONSTANT * stats.count or not len(values):
        return False
    _, counts = np.unique(values, return_counts=True)
    return bool(counts.max() >= CONSTANT * len(values))


def undeclared_nodata(cases: Cases, samples: Samples) -> Iterator[Finding]:
    """Valid pixels that look like no data."""
    pooled = sum((case.survey.stats for case in cases.scenes), BandStats.empty(len(cases.bands)))
    for case in cases.scenes:
        found = {cases.bands[b]: _outliers(case.survey.stats, pooled, b) for b in cases.continuous}
        for usual in (True, False):
            some = {name: [o for o in outliers if o.usual == usual] for name, outliers in found.items()}
            some = {name: outliers for name, outliers in some.items() if outliers}
            if some:
                yield _stands_apart(case, some, usual=usual)
    yield from _all_zero(cases, samples)


def _stands_apart(case: Case, found: Mapping[str, list[_Outlier]], *, usual: bool) -> Finding:
    values = sorted({o.value for outliers in found.values() for o in outliers})
    share = max(o.share for outliers in found.values() for o in outliers)
    shown = ", ".join(f"{value:g}" for value in values)
    where = f"{', '.join(found)} (about {share:.2%} of the valid pixels)"
    figures = {"values": values, "bands": list(found), "share": share}
    if usual:
        message = (
            f"Valid pixels hold {shown} in {where}, which usually means no data and would spoil means and deviations. Declare "
            f"it: scenes.nodata: {values[0]:g}, or in the file (gdal_edit -a_nodata)."
        )
        return Finding("nodata-in-statistics", "error", case.name, message, figures)
    message = (
        f"Valid pixels hold {shown} in {where}, more than {GAP:g} times the range of the others away. If it means no data, "
        "declare it (scenes.nodata); if not, correct the pixels."
    )
    return Finding("nodata-in-statistics", "warning", case.name, message, figures)


def _outliers(stats: BandStats, pooled: BandStats, band: int) -> list[_Outlier]:
    """The lowest and the highest value of a band in a scene, if they stand apart from all pixels of all scenes."""
    found = []
    for lowest in (True, False):
        if not stats.count:
            break
        value = float((stats.minimum if lowest else stats.maximum)[band])
        end = (min if lowest else max)(stats.sketch[band])
        rest = {key: count for key, count in pooled.sketch[band].items() if key != end}
        if not rest:
            break
        low, high = _bulk(rest)
        gap, width = (low - value if lowest else value - high), high - low
        usual = abs(value) >= FLOAT_END or bool(np.isclose(value, FILLS, rtol=1e-6, atol=0).any())
        if gap > 0 and (gap > FILL_GAP * width if usual else gap > GAP * width > 0):
            found.append(_Outlier(value, stats.sketch[band][end] / stats.count, usual))
    return found


def _bulk(bins: Mapping[int, int]) -> tuple[float, float]:
    """Where 99.8 % of some pixels lie, from their sketch."""
    nothing = np.zeros(1)
    alone = BandStats(sum(bins.values()), 0, nothing, nothing, nothing - np.inf, nothing + np.inf, (bins,))
    low, high = alone.quantiles([0.001, 0.999])[0].tolist()
    return low, high


def _all_zero(cases: Cases, samples: Samples) -> Iterator[Finding]:
    """Pixels that are 0 in every band, as padding without a declaration is."""
    if len(cases.continuous) < 2:
        return
    shares = {case.name: samples.zeros(cases.continuous, case.row) for case in cases.scenes}
    share = samples.zeros(cases.continuous)
    if share < EMPTY:
        return
    worst = sorted((s for s in shares if shares[s] >= EMPTY), key=lambda s: -shares[s])
    yield Finding(
        "nodata-in-statistics", "warning", "all bands",
        f"{share:.2%} of the valid pixels looked at are 0 in every band (most in {', '.join(worst[:3])}), which looks like "
        "padding. If it is, declare it: scenes.nodata: 0.",
        {"values": [0], "share": share, "scenes": {name: shares[name] for name in worst}},
    )  # fmt: skip


def other_scale(cases: Cases) -> Iterator[Finding]:
    """Scenes whose values are on another scale than those of most."""
    there = [case for case in cases.scenes if case.survey.stats.count]
    if not there or not cases.continuous:
        return
    ends = np.array([case.survey.stats.quantiles([0.02, 0.98]) for case in there])[:, cases.continuous]
    size = np.abs(ends).max(axis=2)  # (S, C)
    size = np.log10(size, where=size > 0, out=np.full_like(size, np.nan))
    told = np.isfinite(size).any(axis=1)  # the others are 0 in all bands
    there = [case for case, one in zip(there, told, strict=True) if one]
    size = size[told][:, np.isfinite(size).any(axis=0)]
    if len(there) < 2:
        return
    offset = np.nanmedian(size - np.nanmedian(size, axis=0), axis=1)
    order = np.argsort(offset, kind="stable")
    cluster = np.empty(len(there), np.int64)
    cluster[order] = np.cumsum(np.diff(offset[order], prepend=-np.inf) >= np.log10(SCALE)) - 1
    sizes = np.bincount(cluster)
    most = cluster[0] if sizes[cluster[0]] == sizes.max() else sizes.argmax()
    middle = np.median(offset[cluster == most])
    for case, own, number in zip(there, offset, cluster, strict=True):
        if number != most:
            factor = float(10 ** (own - middle))
            shown = f"{factor:.3g} times" if factor >= 1 else f"1/{1 / factor:.3g} of"
            yield Finding(
                "scale-mismatch", "error", case.name,
                f"Its values are about {shown} those of the other scenes (median over bands), as if they were in another unit. "
                "Bring all scenes to one scale, such as reflectance × 10000.",
                {"factor": factor},
            )  # fmt: skip
