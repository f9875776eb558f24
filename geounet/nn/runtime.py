"""One function, batch in, scores out, for the machine at hand: OpenVINO or torch on a CPU, torch on a GPU."""

import copy
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError, DeviceError
from .features import encode
from .segmenter import Segmenter

Scores: TypeAlias = "NDArray[np.float32] | Tensor"

MOST_STREAMS = 4
"""Streams of OpenVINO; each holds the activations of one chip, and a chip keeps several cores busy."""
MICRO_BATCH = 4
"""Chips that a GPU takes at once. Always as many: with the shape, cuDNN would change its algorithm, and so the bits."""

_log = logging.getLogger(__name__)
_importing = threading.Lock()
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


class Forward(Protocol):
    """A network made ready for this machine; may be called from several threads."""

    streams: int
    """Threads that may usefully call it at once."""
    device: str
    """``cpu``, ``cuda:0``, ``mps``."""
    backend: str
    """``openvino`` or ``torch``."""
    precision: str
    """Of the convolutions: ``fp32``, ``bf16`` or ``fp16``; scores are float32 always."""

    def __call__(self, batch: NDArray[np.float32]) -> Scores:
        """Scores (N, K, H, W), float32, of raw band values (N, C, H, W), float32, finite.

        Pixels without data already hold the band's mean. A chip's scores are the same bits whatever the thread, its
        place in the batch and the other chips. The result is the caller's: a NumPy array on a CPU, a tensor on the
        device on a GPU.
        """
        ...


def compile(
    segmenter: Segmenter,
    shape: tuple[int, int],
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    probabilities: bool = True,
    threads: int | None = None,
) -> Forward:
    """Return the fastest way to run a model here.

    Parameters
    ----------
    segmenter : Segmenter
        Left as it is; the function has weights of its own.
    shape : (int, int)
        Height and width of the chips, in pixels, multiples of ``segmenter.stride``.
    device : str
        ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    backend : {'auto', 'torch', 'openvino'}
        ``auto`` is OpenVINO on a CPU, torch where that is missing or cannot convert the network, and torch on a GPU.
    precision : {'auto', 'fp32', 'bf16', 'fp16'}
        ``auto`` is bf16 where the hardware computes it, else fp32. Bands are encoded and standardised and softmax taken
        in float32 in any case.
    probabilities : bool
        Return probabilities; otherwise logits.
    threads : int, optional
        CPU cores to use; by default all that this process may.

    Returns
    -------
    Forward

    Raises
    ------
    DeviceError
        What was asked for is not to be had on this machine.
    ConfigError
        The shape is no multiple of the network's stride, or an option is unknown.
    """
    _check(segmenter, shape, backend, precision, threads)
    where = find_device(device)
    cores = threads or _cores()
    if where.type == "cpu" and backend != "torch":
        try:
            return _OpenVino(segmenter, probabilities, shape, precision, cores)
        except DeviceError:
            raise
        except Exception as error:  # whatever a converter stumbles over, torch can run the network
            why = " ".join(str(error).split())
            if backend == "openvino":
                raise DeviceError(f"OpenVINO cannot run this network here: {why}. Use backend='torch'.") from error
            _log.warning("OpenVINO cannot run this network here (%s); using torch, which is slower.", why)
    if backend == "openvino":
        raise DeviceError(f"OpenVINO runs on the CPU here, not on {where}; use backend='torch' or device='cpu'.")
    return _Torch(_graph(segmenter, probabilities), where, torch_precision(precision, where), cores)


def openvino() -> ModuleType:
    """Module `openvino`, imported with its telemetry left out.

    OpenVINO reports its import to Google Analytics, and keeps an id in the user's home, unless the package
    `openvino_telemetry` is missing; then it uses a stub of its own. For the length of the import, it is missing.

    Raises
    ------
    ImportError
        OpenVINO is not installed.
    """
    with _importing, _without("openvino_telemetry"):
        return importlib.import_module("openvino")


def to_openvino(segmenter: Segmenter, *, probabilities: bool = True) -> Any:
    """`openvino.Model` of any batch and image size (multiples of the stride), from raw bands to scores.

    Converted by the PyTorch frontend from a trace of one small chip: `openvino.convert_model` would report to its
    telemetry, and traces at the size to be run take gigabytes.

    Parameters
    ----------
    segmenter : Segmenter
        Left as it is.
    probabilities : bool
        End in a softmax.

    Notes
    -----
    Where bands are not all continuous, compile it with ``INFERENCE_PRECISION_HINT`` ``f32``: OpenVINO rounds its input
    to the shorter type of the convolutions before it looks at single bands, and 9999 and 10000 are one in bf16.
    """
    return _convert(_graph(segmenter, probabilities), len(segmenter.bands))


class _Graph(nn.Module):
    """Raw bands to scores, ready to be traced; bands and scores in float32 whatever runs between."""

    def __init__(self, segmenter: Segmenter, probabilities: bool) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.probabilities = probabilities

    def forward(self, image: Tensor) -> Tensor:
        return self._scores(self.segmenter.prepare(image))

    def _scores(self, features: Tensor) -> Tensor:
        logits: Tensor = self.segmenter.network(features).float()
        return logits.softmax(dim=1) if self.probabilities else logits


class _EncodedGraph(_Graph):
    """Encoded bands to scores."""

    def forward(self, encoded: Tensor) -> Tensor:
        return self._scores(self.segmenter.scale(encoded))


class _OpenVino:
    """Chips one by one through a static graph; each calling thread has an infer request of its own.

    Bands are encoded before the graph: inside it OpenVINO would cut out a band in the precision of the convolutions,
    in which codes and flags are not what they were.
    """

    device = "cpu"
    backend = "openvino"

    def __init__(
        self, segmenter: Segmenter, probabilities: bool, shape: tuple[int, int], precision: str, cores: int
    ) -> None:
        core = openvino().Core()
        self.precision = _openvino_precision(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self.streams = max(1, min(cores, MOST_STREAMS))
        self._types = segmenter.types
        self._typed = any(kind.typed for kind in self._types)
        channels = sum(kind.channels for kind in self._types)
        model = _convert(_graph(segmenter, probabilities, _EncodedGraph), channels)
        model.reshape([1, channels, *shape])
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
                "NUM_STREAMS": self.streams,
                "INFERENCE_NUM_THREADS": cores,
                "ENABLE_CPU_PINNING": False,  # workers on one machine would all be pinned to the same cores
            },
        )
        self._classes = len(segmenter.legend)
        self._own = threading.local()

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        scores = np.empty((len(batch), self._classes, *batch.shape[2:]), np.float32)
        for chip, found in zip(np.ascontiguousarray(batch, np.float32), scores, strict=True):
            image = encode(torch.tensor(chip[None]), self._types).numpy() if self._typed else chip[None]
            # Shared both ways: the chip is read where it lies, the request's own output copied before its next turn.
            found[:] = self._own.request.infer({0: image}, share_inputs=True, share_outputs=True)[0][0]
        return scores


class _Torch:
    """Chips through torch, channels last; from fixed batches on a GPU, one by one on a CPU."""

    backend = "torch"
    streams = 1  # torch gives one call all cores, or the whole GPU

    def __init__(self, graph: _Graph, device: torch.device, precision: str, cores: int) -> None:
        self.device = str(device)
        self.precision = precision
        self._device = device
        self._graph = graph.to(device).to(memory_format=torch.channels_last)
        self._size = 1 if device.type == "cpu" else MICRO_BATCH
        self._cores = cores
        self._turn = threading.Lock()

    def __call__(self, batch: NDArray[np.float32]) -> Scores:
        with self._turn, torch.no_grad(), self._settings():
            parts = [self._run(batch[start : start + self._size]) for start in range(0, len(batch), self._size)]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts)
        return scores.numpy() if self._device.type == "cpu" else scores

    def _run(self, chips: NDArray[np.float32]) -> Tensor:
        image = torch.from_numpy(np.ascontiguousarray(chips, np.float32))
        missing = self._size - len(image)
        if missing:  # the last batch is filled up, so that every batch has one shape
            image = torch.cat([image, image[-1:].expand(missing, -1, -1, -1)])
        if self._device.type == "cuda":
            image = image.pin_memory()
        image = image.to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, _TYPES[self.precision], enabled=self.precision != "fp32"):
            scores: Tensor = self._graph(image)
        return scores[: len(chips)].contiguous()

    @contextmanager
    def _settings(self) -> Iterator[None]:
        """Algorithms that give the same bits each time, on the cores asked for."""
        if self._device.type == "cuda":
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(self._cores)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Let a package look as if it was not installed."""
    hidden = {key: module for key, module in sys.modules.items() if key.split(".")[0] == name}
    for key in hidden:
        del sys.modules[key]
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to make an import fail
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(hidden)


def _graph(segmenter: Segmenter, probabilities: bool, kind: type[_Graph] = _Graph) -> _Graph:
    return kind(copy.deepcopy(segmenter), probabilities).eval().requires_grad_(False).cpu()


def _convert(graph: _Graph, channels: int) -> Any:
    """OpenVINO's model of a graph that takes so many channels."""
    openvino()
    frontend = importlib.import_module("openvino.frontend")
    decoder = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    side = 2 * graph.segmenter.stride
    with torch.no_grad(), warnings.catch_warnings():
        # torch.jit is deprecated in favour of torch.export, which OpenVINO reads less well and far more slowly.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        # Group normalisation asks whether an image is a single pixel; the answer is no at any size run here.
        tracer = torch.jit.TracerWarning  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=tracer, module=r"torch\.nn\.functional")
        example = torch.zeros(1, channels, side, side)
        traced = torch.jit.trace(graph, example, check_trace=False)  # type: ignore[no-untyped-call]
        # A name of its own: the frontend calls the decoder, but does not keep it alive. No memory is shared with
        # torch, so the model outlives the network.
        graph_of = decoder.TorchScriptPythonDecoder(traced, shared_memory=False)
        reader = frontend.FrontEndManager().load_by_framework("pytorch")
        return reader.convert(reader.load(graph_of))


def _check(segmenter: Segmenter, shape: tuple[int, int], backend: str, precision: str, threads: int | None) -> None:
    for name, value, known in (
        ("backend", backend, ("auto", "torch", "openvino")),
        ("precision", precision, ("auto", *_TYPES)),
    ):
        if value not in known:
            raise ConfigError(f"{name} is one of {', '.join(known)}, not {value!r}.")
    if any(side < 1 or side % segmenter.stride for side in shape):
        raise ConfigError(
            f"chips of {shape[0]} × {shape[1]} pixels do not fit the network; sides are multiples of {segmenter.stride}."
        )
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is a number of CPU cores from 1, not {threads}.")


def find_device(wish: str) -> torch.device:
    """Device of torch by a name as `compile` takes it.

    Raises
    ------
    DeviceError
        It is not there; the message names those that are.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wish == "auto":
        return torch.device("cuda:0" if cuda else "mps" if mps else "cpu")
    here = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count() if cuda else 0)), *(["mps"] if mps else [])]
    name = "cuda:0" if wish == "cuda" else wish
    if name not in here:
        raise DeviceError(f"there is no device {wish} that torch can use here; there is {', '.join(here)}.")
    return torch.device(name)


def _openvino_precision(wish: str, capabilities: list[str]) -> str:
    if wish == "auto":
        return "bf16" if "BF16" in capabilities else "fp32"
    if _CAPABILITIES[wish] not in capabilities:
        there = ", ".join(name for name, capability in _CAPABILITIES.items() if capability in capabilities)
        raise DeviceError(f"this CPU does not compute {wish} under OpenVINO; it does {there}.")
    return wish


def torch_precision(wish: str, device: torch.device) -> str:
    """Precision of torch on a device, ``fp32``, ``bf16`` or ``fp16``, of what is wished for or ``auto``.

    Raises
    ------
    DeviceError
        The hardware does not compute it; the message names what it does.
    """
    there = ["fp32"]
    if device.type == "cuda":
        there += ["fp16"] + ["bf16"] * torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not there before torch 2.10
        there += ["bf16"] * bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    if wish == "auto":
        return "bf16" if "bf16" in there else "fp32"
    if wish not in there:
        raise DeviceError(f"torch does not compute {wish} well on {device} here; it does {', '.join(there)}.")
    return wish


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
