"""The header of a model file: what the weights are for, as JSON.

It holds plain values alone, and each is looked at when it is read: a file may come from anywhere.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from ...core.bandtypes import BandType
from ...core.legend import Legend
from ...errors import ModelFileError
from ..features import Features
from .info import BandInfo, ModelInfo

FORMAT_VERSION = 2
"""Newest version of the header that this module reads. It writes the oldest that says all there is to say, so that
equal models are equal files whatever geounet wrote them: 2 has bands with a `type`, in 1 all are continuous."""


def written(
    architecture: str, arguments: Mapping[str, Any], bands: Sequence[BandInfo], features: Features, info: ModelInfo
) -> str:
    """Header as JSON; equal models give equal text."""
    header = {
        "format_version": 2 if any(band.type.typed for band in bands) else 1,
        "architecture": architecture,
        "arguments": arguments,
        "bands": [_row(band) for band in bands],
        "features": asdict(features),
        "name": info.name,
        "description": info.description,
        "classes": info.legend.to_dicts(),
        "pixel_size": info.pixel_size,
        "provenance": info.provenance,
        "notes": info.notes,
    }
    return json.dumps(_plain(header), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Value as JSON can hold it: numpy's scalars and arrays as Python's, NaN as null, paths as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case PurePath():
            return str(value)
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case set() | frozenset():
            return sorted(_plain(inner) for inner in value)
    return str(value)


def _row(band: BandInfo) -> dict[str, Any]:
    """Band as plain values; a continuous one as the first version of the format spells it."""
    row = {name: value for name, value in vars(band).items() if name != "type"}
    return row | ({"type": band.type.to_dict()} if band.type.typed else {})


def parsed(text: str | None, path: Path) -> dict[str, Any]:
    """Header of a file, as far as its keys: what they hold is looked at by those that read it."""
    if text is None:
        raise ModelFileError(
            f"{path} is a .safetensors file without geounet's header: weights alone do not say which bands and classes they "
            "are for. Put them into a network and save it as a geounet.Segmenter."
        )
    try:
        header = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the header of {path} is not JSON: {error}.") from error
    version = header.get("format_version") if isinstance(header, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}; this geounet reads up to {FORMAT_VERSION}. Upgrade: pip install -U geounet."
        )
    if isinstance(version, bool) or version not in range(1, FORMAT_VERSION + 1):
        raise ModelFileError(f"the header of {path} has no format_version 1 to {FORMAT_VERSION}; found {version!r}.")
    wanted = {
        "format_version", "architecture", "arguments", "bands", "features", "name", "description", "classes",
        "pixel_size", "provenance", "notes",
    }  # fmt: skip
    if header.keys() != wanted:
        raise ModelFileError(
            f"the header of {path} {difference(wanted, header.keys())}, which format version {version} does not allow."
        )
    return dict(header)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON knows")


def bands_of(header: Mapping[str, Any], path: Path) -> list[BandInfo]:
    """Bands that a header tells of."""
    may_be_typed = header["format_version"] > 1
    return [_band(row, path, may_be_typed) for row in _typed(header["bands"], list, "bands", path)]


def _band(row: Any, path: Path, may_be_typed: bool) -> BandInfo:
    wanted = {"name", "mean", "std", "wavelength", "unit", "percentiles"}
    optional = {"type"} if may_be_typed else set()
    if not isinstance(row, dict) or row.keys() - optional != wanted:
        raise ModelFileError(f"the header of {path} has a band that is not {', '.join(sorted(wanted))}: {row!r}.")
    percentiles = _typed(row["percentiles"], dict, "percentiles", path)
    wavelength = row["wavelength"]
    return BandInfo(
        _typed(row["name"], str, "band name", path),
        _number(row["mean"], "mean", path),
        _number(row["std"], "std", path),
        None if wavelength is None else _number(wavelength, "wavelength", path),
        _typed(row["unit"], str, "unit", path),
        {key: _number(value, "percentile", path) for key, value in percentiles.items()},
        BandType.of(_typed(row.get("type", {}), dict, "band type", path)),
    )


def features_of(header: Mapping[str, Any], path: Path) -> Features:
    """Features that a header tells of."""
    row = header["features"]
    if not isinstance(row, dict) or row.keys() != {"differences", "floor"}:
        raise ModelFileError(f"the header of {path} has features that are not differences and floor: {row!r}.")
    return Features(
        _typed(row["differences"], bool, "differences", path), _number(row["floor"], "floor of differences", path)
    )


def info_of(header: Mapping[str, Any], path: Path) -> ModelInfo:
    """What a header tells of the model."""
    size = header["pixel_size"]
    if size is not None and not _number(size, "pixel_size", path) > 0:
        raise ModelFileError(f"the header of {path} has a pixel size of {size} m.")
    rows = _typed(header["classes"], list, "classes", path)
    return ModelInfo(
        Legend.from_dicts([_typed(row, dict, "class", path) for row in rows]),
        _typed(header["name"], str, "name", path),
        _typed(header["description"], str, "description", path),
        None if size is None else float(size),
        _typed(header["provenance"], dict, "provenance", path),
        _typed(header["notes"], str, "notes", path),
    )


def _typed(value: Any, kind: type, what: str, path: Path) -> Any:
    if not isinstance(value, kind):
        raise ModelFileError(f"the header of {path} has a {what} that is no {kind.__name__}: {value!r}.")
    return value


def _number(value: Any, what: str, path: Path) -> float:
    """Float from JSON, where null stands for NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 3e38:
        raise ModelFileError(f"the header of {path} has a {what} that is no number within float32: {value!r}.")
    return float(value)


def difference(wanted: Any, found: Any) -> str:
    """What one set of names lacks of another, and has beside it, in words."""
    lacks, more = sorted(wanted - found), sorted(found - wanted)
    return " and ".join([f"lacks {some(lacks)}"] * bool(lacks) + [f"has the unknown {some(more)}"] * bool(more))


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
