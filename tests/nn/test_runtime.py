import logging
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from geounet.errors import ConfigError, DeviceError
from geounet.nn import runtime
from geounet.nn.runtime import compile, openvino, to_openvino
from geounet.nn.segmenter import Segmenter
from geounet.nn.unet import UNet

SIDE = 32
BACKENDS = ["openvino", "torch"]


def chips(count, bands=3, side=SIDE, seed=0):
    noise = np.random.default_rng(seed).standard_normal((count, bands, side, side))
    return (1000 + 200 * noise).astype(np.float32)


def reference(model, batch):
    with torch.no_grad():
        return model(torch.from_numpy(batch)).softmax(dim=1).numpy()


def numpy_of(scores):
    return scores.cpu().numpy() if isinstance(scores, torch.Tensor) else scores


@pytest.fixture(params=[*BACKENDS, *(["cuda"] if torch.cuda.is_available() else [])])
def forward(request, make_segmenter):
    """Each way to run a network that this machine has, at its own precision."""
    device, backend = ("cuda", "torch") if request.param == "cuda" else ("cpu", request.param)
    return compile(make_segmenter(width=8), (SIDE, SIDE), device=device, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "options", [{"upsample": "bilinear"}, {"norm": "group"}, {"norm": "none", "dropout": 0.5}, {"depth": 3}], ids=str
)
def test_probabilities_are_those_of_plain_torch(backend, options, make_segmenter):
    model, batch = make_segmenter(**options), chips(3)
    forward = compile(model, (SIDE, SIDE), device="cpu", backend=backend, precision="fp32")
    assert_allclose(forward(batch), reference(model, batch), atol=2e-5)
    assert (forward.device, forward.backend, forward.precision) == ("cpu", backend, "fp32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_are_those_of_plain_torch(backend, make_segmenter):
    model, batch = make_segmenter(), chips(2)
    forward = compile(model, (SIDE, SIDE), device="cpu", backend=backend, precision="fp32", probabilities=False)
    assert_allclose(forward(batch), model(torch.from_numpy(batch)).detach().numpy(), atol=1e-4)


def test_what_the_machine_does_by_itself_is_close_to_plain_torch(forward, make_segmenter):
    batch = chips(5)
    scores = numpy_of(forward(batch))
    assert scores.dtype == np.float32
    assert scores.shape == (5, 4, SIDE, SIDE)
    assert_allclose(scores, reference(make_segmenter(width=8), batch), atol=0.05)
    assert_allclose(scores.sum(axis=1), 1, atol=1e-6)  # softmax in float32, whatever the layers had


def test_a_chip_gets_the_same_bits_in_any_place_and_company(forward):
    batch = chips(6)
    together = numpy_of(forward(batch))
    assert_array_equal(numpy_of(forward(batch[::-1].copy()))[::-1], together)
    for n in range(6):
        assert_array_equal(numpy_of(forward(batch[n : n + 1]))[0], together[n])


def test_threads_get_the_same_bits_as_one(forward):
    batches = [chips(2, seed=n) for n in range(6)]
    expected = [numpy_of(forward(batch)) for batch in batches]
    found = {}

    def work(part):
        for n in range(part, 6, 3):
            found[n] = numpy_of(forward(batches[n]))

    threads = [threading.Thread(target=work, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(6):
        assert_array_equal(found[n], expected[n])


def test_a_result_is_the_callers_own(forward):
    first = forward(chips(2, seed=1))
    before = numpy_of(first).copy()
    forward(chips(2, seed=2))
    assert_array_equal(numpy_of(first), before)
    first += 1.0  # and may be written to


def test_bands_far_from_zero_are_centred_before_they_are_rounded(make_segmenter):
    model = make_segmenter(mean=30_000.0, std=2.0, width=8)
    batch = (30_000 + 2 * np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE))).astype(np.float32)
    for backend in BACKENDS:  # bfloat16 has 8 bits: 30 000 would be rounded to 128, sixty deviations
        scores = compile(model, (SIDE, SIDE), device="cpu", backend=backend)(batch)
        assert_allclose(scores, reference(model, batch), atol=0.05)


def test_views_and_other_types_are_taken_as_they_mean(forward):
    batch = chips(2, side=2 * SIDE)[:, :, ::2, ::2]
    assert_array_equal(numpy_of(forward(batch)), numpy_of(forward(batch.copy())))


@pytest.mark.parametrize("backend", BACKENDS)
def test_chips_need_not_be_square(backend, make_segmenter):
    model, batch = make_segmenter(), chips(1, side=64)[:, :, :16, :48]
    forward = compile(model, (16, 48), device="cpu", backend=backend, precision="fp32")
    assert_allclose(forward(batch), reference(model, batch), atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_model_is_left_as_it_was(backend, make_segmenter):
    model = make_segmenter().train()
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    forward = compile(model, (SIDE, SIDE), device="cpu", backend=backend)
    first = forward(chips(1))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    model.network.head.weight.data.zero_()
    assert_array_equal(forward(chips(1)), first)


def test_threads_bound_the_streams(make_segmenter):
    assert compile(make_segmenter(), (SIDE, SIDE), device="cpu", backend="openvino", threads=1).streams == 1
    many = compile(make_segmenter(), (SIDE, SIDE), device="cpu", backend="openvino", threads=16)
    assert many.streams == runtime.MOST_STREAMS


def test_torch_takes_the_cores_asked_for_and_gives_them_back(make_segmenter):
    before = torch.get_num_threads()
    forward = compile(make_segmenter(), (SIDE, SIDE), device="cpu", backend="torch", precision="fp32", threads=1)
    assert_allclose(forward(chips(1)), reference(make_segmenter(), chips(1)), atol=2e-5)
    assert torch.get_num_threads() == before


def test_by_itself_a_cpu_takes_openvino(make_segmenter):
    assert compile(make_segmenter(), (SIDE, SIDE), device="cpu").backend == "openvino"


def test_without_openvino_torch_serves_and_says_so(make_segmenter, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.WARNING, "geounet"):
        forward = compile(make_segmenter(), (SIDE, SIDE), device="cpu")
    assert forward.backend == "torch"
    assert "slower" in caplog.text
    with pytest.raises(DeviceError, match="backend='torch'"):
        compile(make_segmenter(), (SIDE, SIDE), device="cpu", backend="openvino")


class Stranger(UNet):
    """A network with an operation that OpenVINO does not know."""

    def forward(self, image):
        return torch.special.bessel_j0(super().forward(image))


def test_a_network_that_openvino_cannot_convert_runs_on_torch(make_segmenter, caplog):
    model = make_segmenter()
    network = Stranger(**model.network.arguments)
    network.load_state_dict(model.network.state_dict())
    strange = Segmenter(network, model.bands, model.info).eval()
    with caplog.at_level(logging.WARNING, "geounet"):
        forward = compile(strange, (SIDE, SIDE), device="cpu", precision="fp32")
    assert forward.backend == "torch"
    assert "OpenVINO cannot run this network here" in caplog.text
    assert_allclose(forward(chips(1)), reference(strange, chips(1)), atol=2e-5)


def test_a_processor_without_bfloat16_computes_in_float32(make_segmenter, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert compile(make_segmenter(), (SIDE, SIDE), device="cpu", backend="torch").precision == "fp32"
    with pytest.raises(DeviceError, match=r"torch does not compute bf16 well on cpu here; it does fp32\."):
        compile(make_segmenter(), (SIDE, SIDE), device="cpu", backend="torch", precision="bf16")
    with pytest.raises(DeviceError, match=r"this CPU does not compute bf16 under OpenVINO; it does fp32\."):
        runtime._openvino_precision("bf16", ["FP32", "INT8"])
    assert runtime._openvino_precision("auto", ["FP32", "INT8"]) == "fp32"


@pytest.mark.parametrize(
    ("wish", "error", "said"),
    [
        ({"device": "cuda:99"}, DeviceError, "there is no device cuda:99 .* there is cpu"),
        ({"device": "tpu"}, DeviceError, "there is no device tpu"),
        ({"device": "cpu", "backend": "torch", "precision": "fp16"}, DeviceError, "does not compute fp16"),
        ({"backend": "tensorrt"}, ConfigError, "backend is one of auto, torch, openvino"),
        ({"precision": "int8"}, ConfigError, "precision is one of auto, fp32, bf16, fp16"),
        ({"threads": 0}, ConfigError, "threads is a number of CPU cores"),
        ({"shape": (30, 32)}, ConfigError, "30 × 32 pixels do not fit the network; sides are multiples of 4"),
        ({"shape": (0, 32)}, ConfigError, "multiples of 4"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_with_what_there_is(make_segmenter, wish, error, said):
    with pytest.raises(error, match=said):
        compile(make_segmenter(), **{"shape": (SIDE, SIDE), **wish})


def test_a_gpu_that_is_not_there_is_missed(make_segmenter, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="there is no device cuda that torch can use here; there is cpu"):
        compile(make_segmenter(), (SIDE, SIDE), device="cuda")


def test_a_converted_model_takes_any_size_and_outlives_its_network(make_segmenter):
    model = make_segmenter()
    expected = reference(model, chips(2, side=40))
    graph = to_openvino(model)
    del model
    ov = openvino()
    found = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(chips(2, side=40))[0]
    assert_allclose(found, expected, atol=2e-5)


QUIET = """
import multiprocessing.process, socket, sys, urllib.request

def forbidden(*args, **kwargs):
    print("REACHED OUT", args, file=sys.stderr)
    raise SystemExit(3)

socket.socket.connect = socket.getaddrinfo = urllib.request.urlopen = forbidden
multiprocessing.process.BaseProcess.start = forbidden
import torch
from geounet.core.legend import Legend
from geounet.nn.runtime import compile, openvino, to_openvino
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from geounet.nn.unet import UNet

model = Segmenter(UNet(1, 2, depth=1, width=2), [BandInfo("x", 0, 1)], ModelInfo(Legend.of(["a", "b"])))
forward = compile(model, (8, 8), device="cpu", backend="openvino")
forward(torch.zeros(1, 1, 8, 8).numpy())
to_openvino(model)
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")], "telemetry was imported"
assert openvino().tools.ovc.telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
print("quiet")
"""


def test_openvino_neither_reports_nor_leaves_anything_at_home(tmp_path):
    ci = {"CI", "TF_BUILD", "JENKINS_URL"}  # where telemetry would be off by itself
    env = {k: v for k, v in os.environ.items() if k not in ci} | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    env["LOCALAPPDATA"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", QUIET], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "quiet"), done.stderr
    assert list(tmp_path.rglob("*")) == []


def test_telemetry_is_there_again_for_those_who_want_it(monkeypatch):
    here = type(sys)("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", here)
    openvino()
    assert sys.modules["openvino_telemetry"] is here
