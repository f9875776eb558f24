"""Labels that belong to another scene, or lie on other pixels than their image."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyogrio

from ..core.grid import Grid
from ..raster.gdal import is_remote, open_raster, quiet
from ..raster.labels import ColorLabels, PolygonLabels, RasterLabels
from ..raster.labels.placement import Mismatch, mismatches
from .cases import Opened
from .findings import Finding, Level

CODES: Mapping[Mismatch, tuple[str, Level]] = {
    "no-overlap": ("wrong-pair", "error"),
    "crs-missing": ("crs-mismatch", "warning"),
    "crs": ("crs-mismatch", "warning"),
    "pixels": ("grid-mismatch", "warning"),
    "shift": ("half-pixel", "warning"),
}
"""What a difference between the pixels of labels and image is called here."""


def placed(opened: Sequence[Opened], layer: str | None) -> Iterator[Finding]:
    """Labels on other pixels than their image, and labels that do not meet it; `layer` is that of vector files."""
    for one in opened:
        if one.pair is None or not isinstance(one.labels, RasterLabels | ColorLabels):
            continue
        path = one.labels.source
        with quiet(), open_raster(path) as dataset:
            own = Grid(dataset.shape, dataset.transform, dataset.crs)
        for kind, sentence in mismatches(path, own, one.pair.scene.grid):
            code, level = CODES[kind]
            more = " Pair the scene with the labels of its own ground." if kind == "no-overlap" else ""
            yield Finding(code, level, one.row[0], sentence + more, {"labels": path, "kind": kind})
    yield from _off_the_image(opened, layer)


def _off_the_image(opened: Sequence[Opened], layer: str | None) -> Iterator[Finding]:
    """Vector files of which no polygon meets any of their scenes."""
    by_file: dict[str, list[Opened]] = defaultdict(list)
    for one in opened:
        if isinstance(one.labels, PolygonLabels):
            by_file[one.row[1]].append(one)
    for path, users in by_file.items():
        met = any(len(one.labels.shapes.geometries) for one in users if isinstance(one.labels, PolygonLabels))
        if met or not pyogrio.read_info(path, layer, force_feature_count=True)["features"]:
            continue
        yield Finding(
            "wrong-pair", "error", users[0].row[0],
            f"No polygon of {path} meets {'the image' if len(users) == 1 else f'any of the {len(users)} images'}. Pair the "
            "scene with the labels of its own ground; look at the order of x and y and at the CRS of the file.",
            {"labels": path},
        )  # fmt: skip


def named_after_another(opened: Sequence[Opened]) -> Iterator[Finding]:
    """Labels called after another scene, while a file called after their own exists."""
    stems = Counter(Path(one.row[0]).stem for one in opened)
    for one in opened:
        scene, labels, _ = one.row
        own, name = Path(scene).stem, Path(labels).stem
        if is_remote(labels) or _holds(name, own):
            continue
        others = [stem for stem, count in stems.items() if count == 1 and stem != own and _holds(name, stem)]
        if not others or stems[own] > 1:
            continue
        other = max(others, key=len)
        meant = Path(labels).with_stem(_token(other).sub(own.replace("\\", r"\\"), name))
        if meant.exists():
            yield Finding(
                "wrong-pair", "error", scene,
                f"Its labels are {labels}, called after the scene {other}, while {meant.name} lies beside them. Pair it "
                "with its own.",
                {"labels": labels, "expected": str(meant)},
            )  # fmt: skip


def _holds(name: str, stem: str) -> bool:
    return _token(stem).search(name) is not None


def _token(stem: str) -> re.Pattern[str]:
    """A name standing alone in another: c1 in c1_mask, and not in c12."""
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(stem)}(?![A-Za-z0-9])")
