"""The file that a model is kept in: safetensors, of which nothing is run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from ...errors import ModelFileError
from ..architectures import ARCHITECTURES, network_of
from .header import difference, parsed, some

SUFFIX = ".safetensors"
KEY = "geounet"
"""Key of the file's metadata that holds the header, as JSON."""

_FOREIGN = {
    b"PK\x03\x04": "a zip archive, as torch.save and Lightning write them",
    b"\x80\x02\x8a\n": "a pickle, as old torch.save writes it",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (run `git lfs pull`)",
}
_PICKLED = (b"PK\x03\x04", b"\x80\x02\x8a\n")
_RASTERS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"\x89PNG", b"<VRTDataset")


def to_bytes(header: str, network: nn.Module, source: str) -> bytes:
    """Content of the file.

    Raises
    ------
    ModelFileError
        Weights are not finite; the message begins with `source`.
    """
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    _check_finite(weights, source)
    # One key alone: safetensors writes several in no fixed order.
    return to_safetensors(weights, metadata={KEY: header})


def read(path: Path) -> tuple[dict[str, Any], nn.Module]:
    """Header of a file, and its network with the weights.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, of another kind or of a newer version, or its weights do not fit its network.
    """
    _check_kind(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = parsed((file.metadata() or {}).get(KEY), path)
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
    return header, network


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
            return network_of(name, arguments)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ModelFileError(f"{path} asks for a network {name} that cannot be made: {error}") from error


def _check_layout(expected: Mapping[str, Tensor], found: Mapping[str, Any], path: Path) -> None:
    """Refuse a file whose tensors are not, by name, shape and type, those of its network."""
    if expected.keys() != found.keys():
        raise ModelFileError(
            f"{path} {difference(expected.keys(), found.keys())} among its tensors; they do not fit its architecture."
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
            f"{source} has weights that are NaN or infinite ({some(strange)}): the training diverged, or the file is "
            "damaged."
        )
