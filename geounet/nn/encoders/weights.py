"""Where an encoder's first weights come from: timm, torchgeo, or a file."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...core.bands import canonical
from ...errors import ConfigError, ModelFileError
from .backbone import features, stem_of, timm

IMAGENET = "imagenet"
SUFFIX = ".safetensors"
RGB = ("red", "green", "blue")
"""Order of the bands in photographs, which ImageNet is made of."""

_SENSORS = {
    "SENTINEL2": "sentinel-2", "LANDSAT_TM": "landsat-tm", "LANDSAT_ETM": "landsat-etm", "LANDSAT_OLI": "landsat-oli",
}  # fmt: skip
"""Sensors by how the names of torchgeo's weights begin."""
_VCID = {"B6_VCID_1": "B6"}
"""Landsat 7's thermal band comes at two gains; the low one, which does not saturate, is the band."""


@dataclass(frozen=True)
class Pretrained:
    """Weights of an encoder, and what they were trained on."""

    state: Mapping[str, Tensor] = field(repr=False)
    """Tensors by the names that `features` of the encoder gives them."""
    bands: tuple[str, ...] | None
    """In the order of the first layer's kernels; None where nobody says."""
    origin: Mapping[str, Any]
    """Where they come from, as plain values: name, source, licence or publication, mean and deviation taken off."""


def pretrained(name: str | Path, encoder_name: str, depth: int) -> Pretrained:
    """Weights of an encoder by name or file; fetched where they are not on this machine yet.

    Parameters
    ----------
    name : str or path
        ``imagenet``, one of torchgeo's weights such as ``ResNet50_Weights.SENTINEL2_ALL_MOCO``, or a ``.safetensors``
        file: of timm's names, whose metadata may say ``bands`` (a JSON list), or a model of geounet.
    encoder_name : str
        timm's name of the encoder they are for.
    depth : int
        Halvings that are used of it.

    Raises
    ------
    ConfigError
        There are no such weights, they are another encoder's, they cannot be fetched, or torchgeo is not installed.
    ModelFileError
        A file is missing, damaged or of another kind, or does not hold the encoder's weights.
    """
    if name == IMAGENET:
        return _imagenet(encoder_name, depth)
    if isinstance(name, str) and "_Weights." in name and Path(name).suffix not in _PICKLES | {SUFFIX}:
        return _torchgeo(name, encoder_name, depth)
    if isinstance(name, Path) or "/" in name or "\\" in name or Path(name).suffix in _PICKLES | {SUFFIX}:
        return _file(Path(name), encoder_name, depth)
    raise ConfigError(
        f"encoder_weights is {IMAGENET}, one of torchgeo's weights such as ResNet50_Weights.SENTINEL2_ALL_MOCO, or a "
        f"{SUFFIX} file, not {name!r}."
    )


_PICKLES = {".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl"}


def _imagenet(encoder_name: str, depth: int) -> Pretrained:
    config = timm.get_pretrained_cfg(encoder_name)
    if config is None or not config.has_weights:
        raise ConfigError(f"timm has no weights of {encoder_name}: take another encoder, or encoder_weights=None.")
    try:
        network = features(encoder_name, 3, depth, pretrained=True)
    except ConfigError:
        raise
    except Exception as error:  # whatever the hub's client, urllib or the reading of a damaged file raise
        raise _not_fetched(f"timm's weights of {encoder_name}", error) from error
    origin = {
        "weights": IMAGENET, "source": config.hf_hub_id or config.url, "licence": config.license,
        "mean": list(config.mean), "std": list(config.std),
    }  # fmt: skip
    return Pretrained(network.state_dict(), RGB, origin)


def _torchgeo(name: str, encoder_name: str, depth: int) -> Pretrained:
    try:
        models = import_module("torchgeo.models")
    except ImportError as error:
        raise ConfigError(f"{name} is of torchgeo, which is not installed: pip install 'geounet[torchgeo]'.") from error
    try:
        weights = models.get_weight(name)
    except ValueError:
        known = list(getattr(models, name.partition(".")[0], ()))
        near = difflib.get_close_matches(name, map(str, known), n=3, cutoff=0.3)
        more = f"; near are {', '.join(near)}" if near else ""
        raise ConfigError(f"torchgeo has no weights {name!r}{more}.") from None
    made_for = type(weights).__name__.removesuffix("_Weights").lower()  # `meta` names another model for some
    if made_for != encoder_name.partition(".")[0]:
        raise ConfigError(f"{name} are weights of {made_for}, but encoder_name is {encoder_name}.")
    try:
        # torch.hub keeps the file, checks the hash in its name, and with `weights_only` runs nothing of it
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:  # as above
        raise _not_fetched(name, error) from error
    bands = _sensor_bands(weights.name, weights.meta.get("bands"))
    origin = {"weights": name, "source": weights.url, "publication": weights.meta.get("publication")}
    loaded = _fitted(state, encoder_name, int(weights.meta["in_chans"]), depth, name)
    return Pretrained(loaded, bands, origin | _normalisation(weights.transforms))


def _sensor_bands(name: str, codes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Canonical names of the bands that torchgeo's weights say they were trained on."""
    if codes is None:
        return RGB if "_RGB" in name else None
    sensor = next((sensor for start, sensor in _SENSORS.items() if name.startswith(start)), None)
    spelt = [_VCID.get(code, code) for code in codes]
    if sensor == "sentinel-2":  # B1 or B01
        spelt = [f"B{code[1:]:0>2}" if code.startswith("B") else code for code in spelt]
    return canonical(spelt, sensor)


def _normalisation(transforms: Any) -> dict[str, Any]:
    """Mean and deviation that images were brought to scale by, where the weights say so."""
    parts = transforms.modules() if isinstance(transforms, nn.Module) else ()
    for part in parts:
        if hasattr(part, "mean") and hasattr(part, "std"):
            return {"mean": torch.as_tensor(part.mean).tolist(), "std": torch.as_tensor(part.std).tolist()}
    return {}


def _file(path: Path, encoder_name: str, depth: int) -> Pretrained:
    if path.suffix != SUFFIX:
        raise ModelFileError(
            f"{path} is no {SUFFIX} file. Checkpoints (.pth, .pt, .ckpt, .bin) are pickles, which could run code, and are "
            "not read. Convert it where you trust it: safetensors.torch.save_file(torch.load(path, weights_only=True), "
            "'encoder.safetensors')."
        )
    if not path.is_file():
        raise ModelFileError(f"there is no file of encoder weights {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(
            f"{path} is not a whole {SUFFIX} file ({error}); if it was copied, do so again."
        ) from error
    own = {name.removeprefix("encoder."): tensor for name, tensor in state.items() if name.startswith("encoder.")}
    bands = _file_bands(metadata, path)
    kernels = _kernels(own or state, encoder_name, str(path))
    loaded = _fitted(own or state, encoder_name, kernels, depth, str(path))
    return Pretrained(loaded, bands, {"weights": path.name, "source": "file"})


def _file_bands(metadata: Mapping[str, str], path: Path) -> tuple[str, ...] | None:
    """Bands that a file says its weights read: in geounet's header, or as a list of its own."""
    try:
        if "geounet" in metadata:
            bands = json.loads(metadata["geounet"])["arguments"].get("bands")
        else:
            bands = json.loads(metadata.get("bands", "null"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} does not say its bands as a JSON list: {error}.") from error
    if bands is None:
        return None
    if not isinstance(bands, list) or not all(isinstance(band, str) for band in bands):
        raise ModelFileError(f"{path} has bands that are no list of names: {bands!r}.")
    return canonical(bands)


def _kernels(state: Mapping[str, Tensor], encoder_name: str, source: str) -> int:
    """Channels that the first layer of some weights reads."""
    with torch.device("meta"):
        name, _ = stem_of(timm.create_model(encoder_name, features_only=True, pretrained=False), len(RGB))
    spellings = (f"{name}.weight", f"{name.replace('_', '.', 1)}.weight")
    found = next((state[spelling] for spelling in spellings if spelling in state), None)
    if found is None or found.ndim != 4:
        raise ModelFileError(
            f"{source} has no first layer of {encoder_name} ({' or '.join(dict.fromkeys(spellings))}): it is another "
            "network's."
        )
    return int(found.shape[1])


def _fitted(
    state: Mapping[str, Tensor], encoder_name: str, kernels: int, depth: int, source: str
) -> Mapping[str, Tensor]:
    """Weights by the names of `features`, all of them there and of the right shapes."""
    network = features(encoder_name, kernels, depth)
    wanted = network.state_dict().keys()
    # where timm takes a network apart, the first dot of a name becomes an underscore
    renamed = {name if name in wanted else name.replace(".", "_", 1): tensor for name, tensor in state.items()}
    # how many batches a statistic is of is not always kept, and only matters to averages that this is none of
    found = {name: renamed.get(name, tensor) for name, tensor in network.state_dict().items()}
    lacking = sorted(name for name in wanted - renamed.keys() if not name.endswith(".num_batches_tracked"))
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise ModelFileError(
            f"{source} does not hold the weights of {encoder_name}: it lacks {', '.join(lacking[:3])}{more}."
        )
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelFileError(f"{source} does not hold the weights of {encoder_name}: {reason}") from error
    return network.state_dict()


def _not_fetched(what: str, error: Exception) -> ConfigError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ConfigError(
        f"{what} could not be fetched ({reason}). Look at the connection, or fetch them elsewhere and pass a {SUFFIX} file "
        "as encoder_weights, or train from random weights with encoder_weights=None."
    )
