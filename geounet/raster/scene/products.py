"""What the file names of products say: the band in each file, its pixel size, and which files belong together."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...core.bands import SENSORS
from ...errors import SceneError

RASTER_SUFFIXES = frozenset([".tif", ".tiff", ".jp2", ".vrt", ".img", ".dat", ".bil", ".bsq"])
"""What is taken for a band when a folder is opened; products keep previews beside them as PNG and JPEG."""

_SPECTRAL = re.compile(r"(?:^|[_.-])((?:SR_|ST_)?B(?:6_VCID_[12]|8A|\d{1,2}))(?:_(\d+)m)?(?=[_.-]|$)", re.IGNORECASE)
_QUALITY = re.compile(
    r"(?:^|[_.-])("
    r"SCL|AOT|WVP|TCI|PVI"  # Sentinel-2 L2A
    r"|(?:SR_)?QA_AEROSOL|QA_PIXEL|QA_RADSAT|BQA|ST_(?:ATRAN|CDIST|DRAD|EMIS|EMSD|QA|TRAD|URAD)"  # Landsat
    r"|Fmask|S[AZ]A|V[AZ]A"  # HLS; Landsat has the angles, too
    r")(?:_(\d+)m)?$",
    re.IGNORECASE,
)
_CLASSES = frozenset(["scl", "qa_aerosol", "sr_qa_aerosol", "qa_pixel", "qa_radsat", "bqa", "fmask"])
_PREVIEWS = frozenset(["tci", "pvi"])
FILLS = {"sentinel-2": 0, "landsat-oli": 0, "landsat-etm": 0, "landsat-tm": 0}
"""What spectral bands are filled with by the guides of products whose files may not declare it."""
_PRODUCTS = (
    (re.compile(r"T\d{2}[A-Z]{3}_\d{8}T\d{6}|S2[A-D]_|L2A_T\d{2}[A-Z]{3}_", re.IGNORECASE), "sentinel-2"),
    (re.compile(r"HLS\.L30\.", re.IGNORECASE), "hls-l30"),
    (re.compile(r"HLS\.S30\.", re.IGNORECASE), "hls-s30"),
    (re.compile(r"L[CO]0?[89]", re.IGNORECASE), "landsat-oli"),
    (re.compile(r"LE0?7", re.IGNORECASE), "landsat-etm"),
    (re.compile(r"LT0?[45]", re.IGNORECASE), "landsat-tm"),
)
"""How the names of products begin, and whose bands they hold."""


@dataclass(frozen=True, slots=True)
class Token:
    """The band that a file's name speaks of."""

    code: str
    """As the product writes it, such as B02, SR_B4 or QA_PIXEL."""
    name: str
    """Canonical where the product's name says which sensor it is from; of quality layers the code in lower case."""
    kind: Literal["spectral", "quality", "preview"]
    metres: float | None
    """Pixel size, where the name says it."""
    fill: int | None
    """What the product's guide says its spectral bands are filled with."""
    product: str
    """The rest of the file's name: what all files of one product share."""

    @property
    def order(self) -> tuple[bool, int, str]:
        """Spectral bands by number, then the others by name."""
        number = re.search(r"B(\d+)", self.code, re.IGNORECASE) if self.kind == "spectral" else None
        return self.kind != "spectral", int(number[1]) if number else 0, self.code.lower()


def token(path: str) -> Token | None:
    """What the name of a file says of its band; None where it says nothing.

    Examples
    --------
    >>> token("T33UUP_20200101T100319_B8A_20m.jp2")
    Token(code='B8A', name='nir08', kind='spectral', metres=20.0, fill=0, product='T33UUP_20200101T100319')
    >>> token("LC08_L2SP_193024_20200101_02_T1_QA_PIXEL.TIF").name
    'qa_pixel'
    """
    stem, fill = Path(path).stem, None
    if (found := _QUALITY.search(stem)) is not None:
        name = found[1].lower()
        kind: Literal["spectral", "quality", "preview"] = "preview" if name in _PREVIEWS else "quality"
    else:
        *_, found = (None, *_SPECTRAL.finditer(stem))  # the last; a product's own name may look like one
        if found is None:
            return None
        sensor = next((sensor for begins, sensor in _PRODUCTS if begins.match(stem)), "")
        name, kind, fill = SENSORS.get(sensor, {}).get(found[1].lower(), found[1]), "spectral", FILLS.get(sensor)
    product = stem[: found.start()] + stem[found.end() :]
    return Token(found[1], name, kind, float(found[2]) if found[2] else None, fill, product)


def holds_classes(name: str) -> bool:
    """Tell whether a product's layer holds classes or bits, which must not be mixed with their neighbours."""
    return name.lower() in _CLASSES


def expand(source: str) -> Iterator[str]:
    """Files that a name stands for: itself, a folder's bands, or what a pattern matches.

    Of a Sentinel-2 product (SAFE), the bands below ``GRANULE/*/IMG_DATA``, at every pixel size; of any other folder
    the rasters in it. Bands of products stand by number, others by name; previews (TCI, PVI) are left out.

    Raises
    ------
    SceneError
        Nothing matches a pattern.
    """
    path = Path(source)
    if path.is_dir():
        found = [file for folder in _band_folders(path) for file in _rasters(folder)]
        yield from _in_order(found) if found else [source]  # some formats are folders
    elif set("*?[") & set(source) and "://" not in source and not source.startswith("/vsi") and not path.exists():
        matched = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not matched:
            raise SceneError(f"no file matches {source}; check the pattern.")
        files = [str(file) for file in matched if not file.is_dir()]
        folders = [str(file) for file in matched if file.is_dir()]
        yield from _in_order(files)
        for folder in folders:
            yield from expand(folder)
    else:
        yield source


def _band_folders(folder: Path) -> list[Path]:
    """Folders in which a product keeps its bands; the folder itself where it is none that is known."""
    images = sorted(folder.glob("GRANULE/*/IMG_DATA")) or sorted(folder.glob("*/IMG_DATA"))
    images = images or [image for image in (folder / "IMG_DATA", folder) if image.is_dir()][:1]
    sizes = [size for image in images for size in sorted(image.glob("R[126]0m"))]
    return sizes or images


def _rasters(folder: Path) -> list[str]:
    return sorted(
        str(p) for p in folder.iterdir() if p.suffix.lower() in RASTER_SUFFIXES and not p.name.startswith(".")
    )


def _in_order(paths: Iterable[str]) -> list[str]:
    """Files by the bands that they hold, without previews, unless all are."""
    tokens = {path: token(path) for path in paths}
    shown = [path for path, known in tokens.items() if known is None or known.kind != "preview"] or list(tokens)
    if any(tokens[path] is None for path in shown):
        return shown
    by_band = {path: known.order for path, known in tokens.items() if known is not None}
    return sorted(shown, key=by_band.__getitem__)


def stacks(paths: Sequence[str], resolution: float | str | None = None) -> list[list[str]]:
    """Files of each scene among those of one or several products; all in one list where names do not tell.

    Where a product has a band at several pixel sizes, one file is taken: the finest, or, where a resolution is
    asked for, the coarsest that is no coarser.

    Parameters
    ----------
    paths : sequence of str
    resolution : float or str, optional
        Metres; a word leaves the finest file of each band.
    """
    tokens = [token(path) for path in paths]
    named = [(path, known) for path, known in zip(paths, tokens, strict=True) if known is not None]
    if len(named) < 2 or len(named) < len(paths):
        return [list(paths)]
    groups = _grouped(named)
    codes = [{known.code.lower() for _, known in group} for group in groups]
    if sum(map(len, codes)) == len(set().union(*codes)):
        return [_one_a_band(named, resolution)]
    return [_one_a_band(group, resolution) for group in groups]


def _grouped(named: Sequence[tuple[str, Token]]) -> list[list[tuple[str, Token]]]:
    """Files by product; those of one name in two folders are two products."""
    groups: dict[tuple[str, str], list[tuple[str, Token]]] = {}
    seen = [(known.product, known.code.lower(), known.metres) for _, known in named]
    twice = {product for product, code, metres in seen if seen.count((product, code, metres)) > 1}
    for path, known in named:
        folder = str(Path(path).parent) if known.product in twice else ""
        groups.setdefault((known.product, folder), []).append((path, known))
    return list(groups.values())


def _one_a_band(named: Sequence[tuple[str, Token]], resolution: float | str | None) -> list[str]:
    """One file for each band, where the first of its files stands."""
    bands: dict[str, dict[str, float | None]] = {}
    for path, known in named:
        bands.setdefault(known.code.lower(), {})[path] = known.metres
    return [_sized(files, resolution) for files in bands.values()]


def _sized(files: Mapping[str, float | None], resolution: float | str | None) -> str:
    sizes = {path: metres or 0.0 for path, metres in files.items()}
    asked = resolution if isinstance(resolution, (int, float)) else 0.0
    no_coarser = [path for path, metres in sizes.items() if metres <= asked]
    return max(no_coarser, key=sizes.__getitem__) if no_coarser else min(sizes, key=sizes.__getitem__)
