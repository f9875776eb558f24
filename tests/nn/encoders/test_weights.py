import hashlib
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from geounet.errors import ConfigError, ModelFileError
from geounet.nn.encoders import EncoderUNet, Share
from geounet.nn.encoders import weights as rooms
from tests.nn.encoders.making import SMALL, small

torchgeo = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # its own dependencies


@pytest.fixture
def served(tmp_path):
    """Folder whose files a web server on this machine gives, and its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(args)

    asked = []
    folder = tmp_path / "web"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("none.safetensors", None, "there is no file of encoder weights"),
        ("encoder.pth", None, r"are pickles, which could run code.*save_file\(torch\.load"),
        ("cut.safetensors", "cut", "is not a whole .safetensors file"),
        ("other.safetensors", "other", r"has no first layer of mobilenetv3_small_050 \(conv_stem\.weight"),
        ("lacking.safetensors", "lacking", r"it lacks bn1\.bias, bn1\.running_mean, bn1\.running_var and 1 more\."),
        ("shape.safetensors", "shape", "does not hold the weights of mobilenetv3_small_050: size mismatch"),
        ("bands.safetensors", "bands", "names 2 bands, but its first layer reads 3 channels"),
        ("json.safetensors", "json", "does not say its bands as a JSON list"),
        ("text.safetensors", "text", "has bands that are no list of names"),
    ],
)
def test_files_that_hold_other_weights_are_refused(tmp_path, learnt, weights_file, name, change, reason):
    path, state, metadata = tmp_path / name, dict(learnt.state_dict()), {}
    match change:
        case "cut":
            path.write_bytes(weights_file.read_bytes()[:5000])
        case "other":
            state = {"conv1.weight": torch.zeros(1)}
        case "lacking":
            state = {key: value for key, value in state.items() if not key.startswith("bn1.")}
        case "shape":
            state["bn1.weight"] = torch.ones(3)
        case "bands":
            metadata = {"bands": '["red", "nir"]'}
        case "json":
            metadata = {"bands": "red, nir"}
        case "text":
            metadata = {"bands": '"red"'}
    if change not in (None, "cut"):
        save_file(state, path, metadata=metadata)
    with pytest.raises((ConfigError, ModelFileError), match=f"(?s){reason}"):
        small(3, encoder_weights=path)


HUB = """
import sys
import torch
from geounet.errors import ConfigError
from geounet.nn.encoders import EncoderUNet
from geounet.nn.segmenter import Segmenter

print("timm.models" in sys.modules)
bands = ["blue", "green", "red", "nir"]
network = EncoderUNet(4, 2, encoder_name="mobilenetv3_small_050", encoder_weights="imagenet", bands=bands)
torch.save({"first": network.encoder.conv_stem.weight.detach(), "origin": network.origin}, sys.argv[1])
try:
    EncoderUNet(4, 2, encoder_name="mobilenetv3_small_075", encoder_weights="imagenet")
except ConfigError as error:
    print(error)
"""


class Hub(SimpleHTTPRequestHandler):
    """Answers as the hub does that timm asks: the header that clients look for, then the file."""

    def end_headers(self):
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        super().end_headers()

    def log_message(self, *args):
        pass


def test_imagenet_weights_are_fetched_as_timm_fetches_them(tmp_path, learnt):
    folder = tmp_path / "web" / "timm" / "mobilenetv3_small_050.lamb_in1k" / "resolve" / "main"
    folder.mkdir(parents=True)
    whole = timm.create_model(SMALL)
    state = whole.state_dict() | dict(learnt.state_dict())
    save_file(state, folder / "model.safetensors")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(tmp_path / "web"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            environment = os.environ | {
                "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache"),
                "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            command = [sys.executable, "-c", HUB, str(tmp_path / "found.pt")]
            said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        finally:
            server.shutdown()
            thread.join()
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    kernels = learnt.conv_stem.weight
    expected = torch.stack([kernels[:, 2], kernels[:, 1], kernels[:, 0] / 2, kernels[:, 0] / 2], dim=1)
    assert_close(found["first"], expected.detach())
    assert found["origin"]["source"] == "timm/mobilenetv3_small_050.lamb_in1k"
    assert found["origin"]["stem"][0] == ["blue", "blue", 1.0]
    early, refusal = said.splitlines()
    assert early == "False", "timm is imported where there is an encoder, not with every model"
    assert refusal.startswith("timm's weights of mobilenetv3_small_075 could not be fetched (")
    assert "pass a .safetensors file" in refusal


@pytest.fixture
def moco(served, monkeypatch, tmp_path):
    """torchgeo's weights of 13 bands, at an address of this machine."""
    resnet = pytest.importorskip("torchgeo.models", reason="torchgeo is an extra of its own")
    folder, address, asked = served
    torch.manual_seed(1)
    state = {
        name: value
        for name, value in timm.create_model("resnet18", in_chans=13).state_dict().items()
        if "fc" not in name
    }
    torch.save(state, folder / "draft.pth")
    digest = hashlib.sha256((folder / "draft.pth").read_bytes()).hexdigest()[:8]
    name = f"resnet18_sentinel2_all_moco-{digest}.pth"
    (folder / "draft.pth").rename(folder / name)
    weights = resnet.ResNet18_Weights.SENTINEL2_ALL_MOCO
    monkeypatch.setattr(weights.value, "url", f"{address}/{name}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return state, folder / name, asked


@torchgeo
def test_torchgeos_weights_say_which_bands_they_read(moco):
    state, _, asked = moco
    bands = ["B02", "B03", "B04", "B08", "B11", "B12"]
    make = partial(EncoderUNet, 6, 2, encoder_weights="ResNet18_Weights.SENTINEL2_ALL_MOCO", bands=bands)
    network = make()
    assert_close(network.encoder.conv1.weight, state["conv1.weight"][:, [1, 2, 3, 7, 11, 12]] * (13 / 6))
    assert_close(network.encoder.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert network.origin["mean"] == [0]
    assert network.origin["std"] == [10000]
    make()
    assert len(asked) == 1, "fetched once, and kept"


@torchgeo
def test_weights_that_came_damaged_are_refused(moco):
    _, path, _ = moco
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"ResNet18_Weights\.SENTINEL2_ALL_MOCO could not be fetched \(invalid hash"):
        EncoderUNet(13, 2, encoder_weights="ResNet18_Weights.SENTINEL2_ALL_MOCO")


@torchgeo
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ResNet50_Weights.SENTINEL2_ALL_MOCO", "are weights of resnet50, but encoder_name is resnet18"),
        ("ResNet18_Weights.SENTINEL2_MOCO", "torchgeo has no weights .*; near are ResNet18_Weights.SENTINEL2"),
        ("ResNet99_Weights.SENTINEL2_MOCO", "torchgeo has no weights 'ResNet99_Weights.SENTINEL2_MOCO'"),
    ],
)
def test_weights_of_another_encoder_are_refused(name, reason):
    pytest.importorskip("torchgeo", reason="torchgeo is an extra of its own")
    with pytest.raises(ConfigError, match=reason):
        EncoderUNet(4, 2, encoder_weights=name)


def test_without_torchgeo_its_weights_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchgeo.models", None)
    with pytest.raises(ConfigError, match=r"pip install 'geounet\[torchgeo\]'"):
        EncoderUNet(4, 2, encoder_weights="ResNet18_Weights.SENTINEL2_ALL_MOCO")


@torchgeo
def test_the_bands_of_all_of_torchgeos_resnets_are_known():
    models = pytest.importorskip("torchgeo.models", reason="torchgeo is an extra of its own")
    for weights in (*models.ResNet18_Weights, *models.ResNet50_Weights, *models.ResNet152_Weights):
        bands = rooms._sensor_bands(weights.name, weights.meta.get("bands"))
        unknown = set(bands) - set(rooms.canonical(bands)) | {band for band in bands if band[:1] == "B"}
        assert len(bands) == weights.meta["in_chans"]
        assert unknown <= {"B6_VCID_2"}, weights


def test_how_many_batches_a_statistic_is_of_need_not_be_told(tmp_path, learnt):
    state = {name: tensor for name, tensor in learnt.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "old.safetensors")
    network = small(3, encoder_weights=tmp_path / "old.safetensors")
    assert_close(network.encoder.bn1.running_var, learnt.bn1.running_var)
    assert network.stem_shares[0] == Share("band_1", "band_1", 1.0)
