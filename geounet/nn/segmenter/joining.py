"""Several trained models as one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.bandtypes import BandType
from ...errors import ConfigError
from ..architectures import architecture_of, arguments_of
from ..ensemble import NAME, Ensemble
from .info import BandInfo, ModelInfo
from .loading import load
from .model import Segmenter

PIXEL_SIZE_FACTOR = 2**0.5
"""Beyond this ratio of pixel sizes a model has doubts about a scene, and so about another model."""


def ensemble(models: Sequence[Segmenter | Path | str], info: ModelInfo | None = None) -> Segmenter:
    """Model whose class probabilities are the mean of those of several models.

    Each keeps the means and deviations of its own training. What is shown to all of them where there is no data is the
    mean of their means.

    Parameters
    ----------
    models : sequence of Segmenter, or of what `load` takes
        Two or more, with the same bands in the same order and unit, classes and pixel size; their networks may differ.
        They are left as they are.
    info : ModelInfo, optional
        What the ensemble says of itself; by default what the models say, put together, and which they were.

    Returns
    -------
    Segmenter
        Of an `Ensemble`, in evaluation mode, on the CPU.

    Raises
    ------
    ConfigError
        They disagree, are fewer than two, or one of them could not be saved or is an ensemble itself.
    ModelFileError
        As `load`.
    """
    if isinstance(models, str | Path) or len(models) < 2:
        raise ConfigError("an ensemble is of two models or more, and one was given.")
    found = [model if isinstance(model, Segmenter) else load(model) for model in models]
    _agree(found)
    return _joined(found, info or _info(found))


def _joined(models: Sequence[Segmenter], info: ModelInfo) -> Segmenter:
    types = [_union(kinds) for kinds in zip(*(model.types for model in models), strict=True)]
    bands = [_band(rows, kind) for rows, kind in zip(zip(*(m.bands for m in models), strict=True), types, strict=True)]
    members = [_member(model, types) for model in models]
    with torch.device("meta"):  # weights follow; no chance is drawn for them
        network = Ensemble(sum(kind.channels for kind in types), len(models[0].legend), members=members)
    weights = {
        f"members.{number}.network.{name}": tensor.detach().cpu().clone()
        for number, model in enumerate(models)
        for name, tensor in model.network.state_dict().items()
    }
    network.load_state_dict(weights, assign=True)
    return Segmenter(network, bands, info).eval()


def _agree(models: Sequence[Segmenter]) -> None:
    """Refuse models that are not for the same scenes and classes."""
    facts: dict[str, Callable[[Segmenter], Any]] = {
        "bands": lambda model: model.band_names,
        "units": lambda model: tuple(band.unit for band in model.bands),
        "classes": lambda model: tuple(f"{one.code} {one.name}" for one in model.legend.classes),
        "kinds of bands": lambda model: tuple(kind.kind for kind in model.types),
        "periods": lambda model: tuple(kind.period for kind in model.types),
    }
    for what, fact in facts.items():
        first = fact(models[0])
        for number, model in enumerate(models[1:], start=2):
            if fact(model) != first:
                raise ConfigError(
                    f"models of an ensemble have the same {what}; the first has {_listed(first)}, number {number} "
                    f"({model.info.name}) has {_listed(fact(model))}."
                )
    check_pixel_sizes([model.pixel_size for model in models], "models of an ensemble")


def check_pixel_sizes(sizes: Sequence[float | None], what: str) -> None:
    """Refuse pixel sizes, in metres where they are known, that are too unlike for one model.

    Raises
    ------
    ConfigError
        Beginning with `what`.
    """
    known = [size for size in sizes if size is not None]
    if known and max(known) / min(known) > PIXEL_SIZE_FACTOR:
        raise ConfigError(
            f"{what} have one pixel size, but here it goes from {min(known):g} to {max(known):g} m, at which the same "
            "network sees other shapes."
        )


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _union(kinds: Sequence[BandType]) -> BandType:
    """Type with the codes, or bits, that any of the models knows."""
    codes = {code for kind in kinds for code in kind.codes}
    bits = {bit for kind in kinds for bit in kind.bits}
    return replace(kinds[0], codes=tuple(sorted(codes)), bits=tuple(sorted(bits)))


def _band(rows: Sequence[BandInfo], kind: BandType) -> BandInfo:
    """A band of the ensemble: mean and deviation of what the models were trained on, in equal parts."""
    means, stds = np.array([[row.mean, row.std] for row in rows]).T
    mean = float(means.mean())
    std = float(np.sqrt(np.mean(stds**2 + (means - mean) ** 2)))
    keys = [key for key in rows[0].percentiles if all(key in row.percentiles for row in rows)]
    percentiles = {key: float(np.mean([row.percentiles[key] for row in rows])) for key in keys}
    return replace(rows[0], mean=mean, std=std, percentiles=percentiles, type=kind)


def _member(model: Segmenter, types: Sequence[BandType]) -> dict[str, Any]:
    """Keywords of the ensemble's member."""
    name = architecture_of(model.network)
    if name is None or name == NAME:
        raise ConfigError(
            f"{model.info.name or 'a model'} cannot be part of an ensemble: "
            + (
                "it is one; join the models that it was made of."
                if name
                else "its network is of no known architecture."
            )
        )
    return {
        "architecture": name,
        "arguments": arguments_of(model.network),
        "channels": _places(model.types, types),
        "center": model.center.tolist(),
        "spread": model.spread.tolist(),
        "quantities": model.quantities,
        "differences": model.features.differences,
        "floor": model.features.floor,
    }


def _places(own: Sequence[BandType], union: Sequence[BandType]) -> list[int]:
    """Places of a model's encoded channels among those of the ensemble."""
    places: list[int] = []
    start = 0
    for mine, all_ in zip(own, union, strict=True):
        named = all_.codes or all_.bits
        inside = [named.index(value) for value in mine.codes or mine.bits] if named else range(all_.channels)
        places += [start + place for place in inside]
        start += all_.channels
    return places


def _info(models: Sequence[Segmenter]) -> ModelInfo:
    """What models say of themselves, put together."""
    infos = [model.info for model in models]
    sizes = [info.pixel_size for info in infos if info.pixel_size is not None]
    return replace(
        infos[0],
        name=" + ".join(dict.fromkeys(info.name for info in infos)),
        description="; ".join(dict.fromkeys(info.description for info in infos)),
        pixel_size=float(np.median(sizes)) if sizes else None,
        notes=" ".join(dict.fromkeys(info.notes for info in infos if info.notes)),
        provenance={
            "members": [described(model) for model in models],
            **{key: told for key in ("data", "licence", "citation") if (told := _told(infos, key))},
        },
    )


def described(model: Segmenter) -> dict[str, Any]:
    """What an ensemble's provenance tells of a member."""
    return {"name": model.info.name, "hash": model.hash, **model.info.provenance}


def _told(infos: Sequence[ModelInfo], key: str) -> str:
    return "; ".join(dict.fromkeys(str(text) for info in infos if (text := info.provenance.get(key))))
