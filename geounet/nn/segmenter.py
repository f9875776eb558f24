"""What was trained, bundled with what it takes to use it rightly, and the file it is kept in."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path, PurePath
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from ..core.legend import Legend
from ..errors import ConfigError, LegendError, ModelFileError, OutputError
from ..output import atomic
from .features import Features
from .unet import UNet

ARCHITECTURES: dict[str, type[nn.Module]] = {"unet": UNet}
"""Networks that a model file may ask for, by name.

Each takes `in_channels`, `classes` and more as keywords, keeps them all in `arguments` as plain values for JSON, and has
a `stride`: the number of pixels that its input's sides are multiples of when it is traced.
"""

SUFFIX = ".safetensors"
KEY = "geounet"
"""Key of the file's metadata that holds the header, as JSON."""
FORMAT_VERSION = 1
"""Version of the header this module writes, and the newest it reads."""

_FOREIGN = {
    b"PK\x03\x04": "a zip archive, as torch.save and Lightning write them",
    b"\x80\x02\x8a\n": "a pickle, as old torch.save writes it",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (run `git lfs pull`)",
}
_PICKLED = (b"PK\x03\x04", b"\x80\x02\x8a\n")


@dataclass(frozen=True)
class BandInfo:
    """One band as a model reads it."""

    name: str
    """Canonical where there is one (`geounet.core.bands`)."""
    mean: float
    """Over the training pixels, in the band's units."""
    std: float
    """Likewise; 0 or NaN for a band that does not vary, which is then only centred."""
    wavelength: float | None = None
    """Centre, in micrometres."""
    unit: str = ""
    """Of the values, such as ``reflectance × 10000``."""
    percentiles: Mapping[str, float] = field(default_factory=dict)
    """Values of the training pixels by percentile, ``{"1": 120.0, "50": …, "99.9": …}``."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, for people and for checks."""

    legend: Legend
    """Classes in the order of the logits."""
    name: str = ""
    description: str = ""
    pixel_size: float | None = None
    """Metres, of the training images; None where they have no place."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Data, split, seed, versions, metrics, licence, citation, created: values that JSON can hold."""
    notes: str = ""


class Segmenter(nn.Module):
    """A network that takes raw band values, and knows what they are and what its classes mean.

    Parameters
    ----------
    network : Module
        (N, F, H, W) features to (N, K, H, W) logits; of a class in `ARCHITECTURES` if it is to be saved.
    bands : sequence of BandInfo
        In the order of the channels, C of them.
    info : ModelInfo
        With a legend of K classes.
    features : Features, optional
        What the network sees of the bands; by default their standardised values.

    Attributes
    ----------
    mean, std : Tensor (C,), float32
        Of each band, on the network's device; `std` is 1 where a band does not vary.

    Raises
    ------
    ConfigError
        Bands or classes are not as many as the network has, a band is named twice, a mean is not finite, or a
        deviation below zero.
    """

    mean: Tensor
    std: Tensor
    __jit_unused_properties__: ClassVar[list[str]] = [  # torch.jit.trace would call them all, and hash the weights
        "legend", "pixel_size", "band_names", "stride", "hash", "short_hash", "_architecture",
    ]  # fmt: skip

    def __init__(
        self, network: nn.Module, bands: Sequence[BandInfo], info: ModelInfo, features: Features | None = None
    ) -> None:
        super().__init__()
        self.features = features or Features()
        names = [band.name for band in bands]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"a model reads each band once, but {', '.join(twice)} is given more than once.")
        channels = self.features.channels(len(bands))
        for what, count, key in (("channels", channels, "in_channels"), ("classes", len(info.legend), "classes")):
            made_for = _arguments(network).get(key, count)
            if made_for != count:
                raise ConfigError(f"the network was made for {made_for} {what}, but {count} are given.")
        for band in bands:
            if not math.isfinite(band.mean):
                raise ConfigError(f"band {band.name} has the mean {band.mean}: no valid pixel was seen.")
            if band.std < 0:
                raise ConfigError(f"band {band.name} has a standard deviation below zero: {band.std}.")
        self.network = network
        self.bands = tuple(bands)
        self.info = info
        spread = [band.std if math.isfinite(band.std) and band.std > 0 else 1.0 for band in bands]
        # Not persistent: the header holds them, and a truth is kept once.
        self.register_buffer("mean", torch.tensor([band.mean for band in bands], dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(spread, dtype=torch.float32), persistent=False)

    @property
    def legend(self) -> Legend:
        """Classes in the order of the logits."""
        return self.info.legend

    @property
    def pixel_size(self) -> float | None:
        """Metres, of the training images; None where they have no place."""
        return self.info.pixel_size

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in the order of the channels."""
        return tuple(band.name for band in self.bands)

    @property
    def stride(self) -> int:
        """Number of pixels of which a compiled network's input sides are multiples."""
        return int(getattr(self.network, "stride", 1))

    def prepare(self, image: Tensor) -> Tensor:
        """Channels (N, F, H, W), float32, that the network sees of finite raw values (N, C, H, W)."""
        return self.features(image, self.mean, self.std)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores of every pixel.

        Parameters
        ----------
        image : Tensor (N, C, H, W), float32
            Raw values in the units of `bands`; NaN or inf where there is no data, which the network sees as the band's
            mean.

        Returns
        -------
        Tensor (N, K, H, W), float
            Logits; those of pixels without data mean nothing.
        """
        image = torch.where(torch.isfinite(image), image, self.mean.view(1, -1, 1, 1))
        return self.network(self.prepare(image))  # type: ignore[no-any-return]

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the model to one safetensors file [1]_, whole or not at all; equal models give equal bytes.

        Parameters
        ----------
        path : path
            Ends in ``.safetensors``.
        overwrite : bool
            Replace what is there.

        Returns
        -------
        Path

        Raises
        ------
        OutputExistsError, OutputError
            As `geounet.output.atomic`, or the suffix is another.
        ModelFileError
            The network is of no architecture that could be loaded again, or its weights are not finite.

        References
        ----------
        .. [1] https://huggingface.co/docs/safetensors
        """
        path = Path(path)
        if path.suffix != SUFFIX:
            raise OutputError(f"models are saved as {SUFFIX} files; {path} has another suffix.")
        if self._architecture is None:
            raise ModelFileError(
                f"{path} cannot be saved: {type(self.network).__name__} is not among the architectures that could be "
                f"loaded again ({', '.join(ARCHITECTURES)}); register it in geounet.nn.segmenter.ARCHITECTURES."
            )
        with atomic(path, overwrite=overwrite) as part:
            part.write_bytes(self._to_bytes(str(path)))
        return path

    @classmethod
    def load(cls, path: Path | str) -> "Segmenter":
        """Read a model from a file; nothing in it is run.

        Parameters
        ----------
        path : path
            As `save` wrote it.

        Returns
        -------
        Segmenter
            In evaluation mode, on the CPU.

        Raises
        ------
        ModelFileError
            The file is missing, damaged, of another kind or of a newer version, or its parts do not fit together.
        """
        path = Path(path)
        _check_kind(path)
        try:
            with safe_open(path, framework="pt") as file:
                header = _header((file.metadata() or {}).get(KEY), path)
                network = _network(header, path)
                expected = network.state_dict()
                _check_layout(expected, {name: file.get_slice(name) for name in file.keys()}, path)  # noqa: SIM118
                weights = {name: file.get_tensor(name).clone() for name in expected}  # not a view of the file
        except SafetensorError as error:
            raise ModelFileError(
                f"{path} is not a whole {SUFFIX} file ({error}); if it was downloaded or copied, do so again."
            ) from error
        _check_finite(weights, str(path))
        network.load_state_dict(weights, assign=True)
        try:
            return cls(network, _bands(header, path), _info(header, path), _features(header, path)).eval()
        except (ConfigError, LegendError) as error:
            raise ModelFileError(f"{path} contradicts itself: {error}") from error

    @property
    def hash(self) -> str:
        """SHA-256 of the file that `save` writes, 64 hexadecimal digits; ``sha256sum model.safetensors`` agrees."""
        return hashlib.sha256(self._to_bytes("this model")).hexdigest()

    @property
    def _architecture(self) -> str | None:
        """Name under which the network can be loaded again; None if it cannot."""
        return next((name for name, made in ARCHITECTURES.items() if type(self.network) is made), None)

    @property
    def short_hash(self) -> str:
        """First 12 digits of `hash`, for names and messages."""
        return self.hash[:12]

    def _to_bytes(self, source: str) -> bytes:
        header = {
            "format_version": FORMAT_VERSION,
            "architecture": self._architecture or type(self.network).__name__,
            "arguments": _arguments(self.network),
            "bands": [asdict(band) for band in self.bands],
            "features": asdict(self.features),
            "name": self.info.name,
            "description": self.info.description,
            "classes": self.legend.to_dicts(),
            "pixel_size": self.pixel_size,
            "provenance": self.info.provenance,
            "notes": self.info.notes,
        }
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        _check_finite(weights, source)
        text = json.dumps(_plain(header), sort_keys=True, ensure_ascii=False, allow_nan=False)
        # One key alone: safetensors writes several in no fixed order.
        return to_safetensors(weights, metadata={KEY: text})


def bundled() -> dict[str, Path]:
    """Models that come with geounet, file by name."""
    folder = Path(str(resources.files("geounet") / "models"))
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def load(model: Path | str) -> Segmenter:
    """Model from a file, or one that comes with geounet, by name.

    Parameters
    ----------
    model : path or str
        A file wins over a bundled model of the same name.

    Returns
    -------
    Segmenter
        In evaluation mode, on the CPU.

    Raises
    ------
    ModelFileError
        There is neither, or as `Segmenter.load`.
    """
    known = bundled()
    if isinstance(model, str) and model in known and not Path(model).is_file():
        return Segmenter.load(known[model])
    if not Path(model).exists():
        names = ", ".join(known) or "none"
        raise ModelFileError(f"there is no model file {model}, and no bundled model of that name; bundled: {names}.")
    return Segmenter.load(model)


def _arguments(network: nn.Module) -> dict[str, Any]:
    return dict(getattr(network, "arguments", {}))


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


_RASTERS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"\x89PNG", b"<VRTDataset")


def _check_kind(path: Path) -> None:
    """Refuse what is plainly no safetensors file, by content, and say how to convert it."""
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; a model is one {SUFFIX} file.")
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except FileNotFoundError:
        raise ModelFileError(f"there is no model file {path}.") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    kind = next((magic for magic in _FOREIGN if start.startswith(magic)), None)
    if (
        kind is None
        and start[:1] == b"\x80"
        and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
        and start[8:9] != b"{"
    ):
        kind = b"\x80\x02\x8a\n"
    if kind is None:
        if start.startswith(_RASTERS):
            raise ModelFileError(f"{path} is a raster, not a model ({SUFFIX}).")
        if path.suffix != SUFFIX and start[8:9] != b"{":
            raise ModelFileError(
                f"{path} is not a model of geounet: that is one {SUFFIX} file, as `geounet train` writes it. Checkpoints of "
                "other tools (.ckpt, .pth) are pickles, which could run code, and are never read."
            )
        return
    advice = (
        " It could run code when opened, so geounet does not. Convert it where you trust it: "
        "torch.load(path, weights_only=True), put the state dict into a network, and "
        "geounet.Segmenter(network, bands, info).save('model.safetensors')."
        if kind in _PICKLED
        else ""
    )
    raise ModelFileError(f"{path} is not a model of geounet ({SUFFIX}) but {_FOREIGN[kind]}.{advice}")


def _header(text: str | None, path: Path) -> dict[str, Any]:
    if text is None:
        raise ModelFileError(
            f"{path} is a {SUFFIX} file without geounet's header: weights alone do not say which bands and classes they "
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
    if isinstance(version, bool) or version != FORMAT_VERSION:
        raise ModelFileError(f"the header of {path} has no format_version {FORMAT_VERSION}; found {version!r}.")
    wanted = {
        "format_version", "architecture", "arguments", "bands", "features", "name", "description", "classes",
        "pixel_size", "provenance", "notes",
    }  # fmt: skip
    if header.keys() != wanted:
        raise ModelFileError(
            f"the header of {path} {_difference(wanted, header.keys())}, which format version {FORMAT_VERSION} does not allow."
        )
    return dict(header)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON knows")


def _network(header: Mapping[str, Any], path: Path) -> nn.Module:
    """Network of the right layers, on no device: nothing is allocated before the file is seen to hold its weights."""
    name, arguments = header["architecture"], header["arguments"]
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ModelFileError(
            f"{path} needs the architecture {name!r}, which this geounet does not have ({', '.join(ARCHITECTURES)}); "
            "it may come from a newer one: pip install -U geounet."
        )
    if not isinstance(arguments, dict):
        raise ModelFileError(f"the header of {path} has arguments that are no mapping: {arguments!r}.")
    try:
        with torch.device("meta"):
            return ARCHITECTURES[name](**arguments)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ModelFileError(f"{path} asks for a network {name} that cannot be made: {error}") from error


def _check_layout(expected: Mapping[str, Tensor], found: Mapping[str, Any], path: Path) -> None:
    """Refuse a file whose tensors are not, by name, shape and type, those of its network."""
    if expected.keys() != found.keys():
        raise ModelFileError(
            f"{path} {_difference(expected.keys(), found.keys())} among its tensors; they do not fit its architecture."
        )
    types = {torch.float32: "F32", torch.int64: "I64"}
    for name, tensor in expected.items():
        shape, dtype = tuple(found[name].get_shape()), found[name].get_dtype()
        if (shape, dtype) != (tuple(tensor.shape), types.get(tensor.dtype)):
            raise ModelFileError(
                f"{path} has {name} as {dtype} of shape {shape}; its architecture expects {types.get(tensor.dtype)} "
                f"of shape {tuple(tensor.shape)}."
            )


def _check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    strange = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if strange:
        raise ModelFileError(
            f"{source} has weights that are NaN or infinite ({_some(strange)}): the training diverged, or the file is "
            "damaged."
        )


def _bands(header: Mapping[str, Any], path: Path) -> list[BandInfo]:
    return [_band(row, path) for row in _typed(header["bands"], list, "bands", path)]


def _band(row: Any, path: Path) -> BandInfo:
    wanted = {"name", "mean", "std", "wavelength", "unit", "percentiles"}
    if not isinstance(row, dict) or row.keys() != wanted:
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
    )


def _features(header: Mapping[str, Any], path: Path) -> Features:
    row = header["features"]
    if not isinstance(row, dict) or row.keys() != {"differences", "floor"}:
        raise ModelFileError(f"the header of {path} has features that are not differences and floor: {row!r}.")
    return Features(
        _typed(row["differences"], bool, "differences", path), _number(row["floor"], "floor of differences", path)
    )


def _info(header: Mapping[str, Any], path: Path) -> ModelInfo:
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


def _difference(wanted: Any, found: Any) -> str:
    lacks, more = sorted(wanted - found), sorted(found - wanted)
    return " and ".join([f"lacks {_some(lacks)}"] * bool(lacks) + [f"has the unknown {_some(more)}"] * bool(more))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
