import hashlib
import json
import pickle
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from geounet.core.bandtypes import BandType
from geounet.core.legend import Legend
from geounet.errors import ConfigError, ModelFileError, OutputError, OutputExistsError
from geounet.nn.segmenter import ARCHITECTURES, BandInfo, ModelInfo, Segmenter, bundled, load, loading
from geounet.nn.unet import UNet

NAN = float("nan")


class Pixelwise(torch.nn.Module):
    """Looks at one pixel at a time."""

    stride = 1

    def __init__(self, in_channels, classes):
        super().__init__()
        self.arguments = {"in_channels": in_channels, "classes": classes}
        self.head = torch.nn.Conv2d(in_channels, classes, 1)

    def forward(self, image):
        return self.head(image)


def sees_itself(bands):
    """Segmenter whose logits are its standardised bands."""
    network = Pixelwise(len(bands), len(bands))
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(len(bands)).view(len(bands), len(bands), 1, 1))
        network.head.bias.zero_()
    return Segmenter(network, bands, ModelInfo(Legend.of([b.name for b in bands])))


def read(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["geounet"])  # noqa: SIM118


@pytest.fixture
def rewritten(tmp_path, make_segmenter):
    """Path of a model whose header or weights were changed after saving."""

    def rewrite(change):
        path = make_segmenter().save(tmp_path / "model.safetensors")
        weights, header = read(path)
        change(header, weights)
        text = header if isinstance(header, str) else json.dumps(header)
        save_file(weights, path, metadata={"geounet": text})
        return path

    return rewrite


def test_raw_values_are_standardised_band_by_band():
    model = sees_itself([BandInfo("red", 100.0, 10.0), BandInfo("nir", -2.0, 0.5)])
    image = torch.tensor([[110.0, 90.0], [-2.0, -1.0]]).view(1, 2, 1, 2)
    assert model(image).view(2, 2).tolist() == [[1.0, -1.0], [0.0, 2.0]]


@pytest.mark.parametrize("hole", [NAN, float("inf"), -float("inf")])
def test_a_pixel_without_data_looks_like_the_bands_mean(hole):
    model = sees_itself([BandInfo("red", 100.0, 10.0)])
    assert model(torch.tensor([[[[110.0, hole]]]])).tolist() == [[[[1.0, 0.0]]]]


@pytest.mark.parametrize("std", [0.0, NAN])
def test_a_band_that_does_not_vary_is_only_centred(std):
    model = sees_itself([BandInfo("slope", 7.0, std)])
    assert model(torch.tensor([[[[7.0, 9.0]]]])).tolist() == [[[[0.0, 2.0]]]]


def test_means_travel_to_the_device_with_the_network(make_segmenter, device):
    model = make_segmenter().to(device)
    assert {t.device.type for t in (model.mean, model.std, *model.network.parameters())} == {device}
    assert model(torch.zeros(1, 3, 4, 4, device=device)).shape == (1, 4, 4, 4)


def test_a_model_read_back_is_the_model_written(tmp_path, make_segmenter):
    model = make_segmenter(norm="batch", upsample="bilinear")
    again = Segmenter.load(model.save(tmp_path / "model.safetensors"))
    image = torch.randn(2, 3, 12, 20) * 200 + 1000
    assert torch.equal(again(image), model(image))
    assert again.bands == model.bands
    assert again.info == model.info
    assert again.network.arguments == model.network.arguments
    assert not again.training
    assert again.hash == model.hash
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_equal_models_give_equal_files_and_the_hash_is_the_files(tmp_path, make_segmenter):
    one, two = (make_segmenter().save(tmp_path / f"{n}.safetensors") for n in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    assert make_segmenter().hash == hashlib.sha256(one.read_bytes()).hexdigest()
    assert make_segmenter().hash.startswith(make_segmenter().short_hash)


def test_whatever_differs_the_hash_differs(make_segmenter):
    model = make_segmenter()
    others = [
        make_segmenter(seed=1),
        make_segmenter(mean=1001.0),
        Segmenter(model.network, model.bands, replace(model.info, name="b")),
    ]
    assert len({model.hash, *(other.hash for other in others)}) == 4


def test_the_header_says_what_the_contract_asks_for(tmp_path, make_segmenter):
    weights, header = read(make_segmenter().save(tmp_path / "model.safetensors"))
    assert header["format_version"] == 1
    assert header["architecture"] == "unet"
    assert header["arguments"] | {"in_channels": 3, "classes": 4, "depth": 2, "width": 4} == header["arguments"]
    assert header["bands"][0] == {
        "name": "band 0", "mean": 1000.0, "std": 200.0, "wavelength": 0.5, "unit": "counts",
        "percentiles": {"1": 600.0, "99": 1400.0},
    }  # fmt: skip
    assert [(c["id"], c["code"], c["name"]) for c in header["classes"]] == [(i, 10 * i, f"class {i}") for i in range(4)]
    assert header["pixel_size"] == 10.0
    assert header["provenance"] == {"seed": 0}
    assert UNet(**header["arguments"]).load_state_dict(weights)  # plain torch can use them as well


def test_provenance_may_hold_what_training_has_at_hand(tmp_path, make_segmenter):
    model = make_segmenter()
    provenance = {
        "iou": np.float32(0.5),
        "never seen": NAN,
        "data": tmp_path,
        "split": (1, np.int64(2)),
        "bands": {"b", "a"},
        3: np.eye(2),
    }
    model = Segmenter(model.network, model.bands, replace(model.info, provenance=provenance))
    found = Segmenter.load(model.save(tmp_path / "model.safetensors")).info.provenance
    assert found == {
        "iou": 0.5,
        "never seen": None,
        "data": str(tmp_path),
        "split": [1, 2],
        "bands": ["a", "b"],
        "3": [[1, 0], [0, 1]],
    }


def test_a_deviation_never_measured_is_read_back_as_such(tmp_path):
    network = UNet(1, 2, depth=1, width=2)
    model = Segmenter(network, [BandInfo("x", 0.1, NAN, percentiles={"50": NAN})], ModelInfo(Legend.of(["a", "b"])))
    band = Segmenter.load(model.save(tmp_path / "model.safetensors")).bands[0]
    assert (band.mean, band.wavelength) == (0.1, None)
    assert np.isnan([band.std, band.percentiles["50"]]).all()


def test_loading_draws_no_chance_and_shares_nothing_with_the_file(tmp_path, make_segmenter):
    path = make_segmenter().save(tmp_path / "model.safetensors")
    state = torch.random.get_rng_state()
    model = load(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    image = torch.full((1, 3, 4, 4), 1100.0)
    before = model(image)
    with path.open("r+b") as file:
        file.seek(-400, 2)
        file.write(bytes(400))
    assert torch.equal(model(image), before)


def test_a_model_in_training_on_any_device_is_saved_the_same(make_segmenter, device):
    model = make_segmenter()
    expected = model.hash
    model = model.train().to(device).to(memory_format=torch.channels_last)
    assert model.hash == expected
    assert model.training


def test_an_existing_model_is_kept_unless_asked(tmp_path, make_segmenter):
    path = make_segmenter().save(tmp_path / "model.safetensors")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        make_segmenter(seed=1).save(path)
    assert path.read_bytes() == before
    make_segmenter(seed=1).save(path, overwrite=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_is_not_saved_under_another_suffix(tmp_path, make_segmenter):
    with pytest.raises(OutputError, match=r"model\.pt has another suffix"):
        make_segmenter().save(tmp_path / "model.pt")


def test_a_network_that_could_not_be_loaded_again_is_not_saved(tmp_path):
    with pytest.raises(ModelFileError, match="Pixelwise is not among the architectures"):
        sees_itself([BandInfo("red", 0.0, 1.0)]).save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_of_ones_own_can_be_registered(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "pixelwise", Pixelwise)
    model = sees_itself([BandInfo("red", 1.0, 2.0)])
    assert Segmenter.load(model.save(tmp_path / "m.safetensors"))(torch.full((1, 1, 1, 1), 5.0)).item() == 2.0


def test_a_diverged_network_is_not_saved(tmp_path, make_segmenter):
    model = make_segmenter()
    model.network.head.bias.data[1] = NAN
    with pytest.raises(ModelFileError, match=r"NaN or infinite \(head\.bias\)"):
        model.save(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("bands", "classes", "said"),
    [
        ([BandInfo("red", 0, 1)], 2, "made for 2 channels, but 1"),
        ([BandInfo("red", 0, 1), BandInfo("nir", 0, 1)], 3, "made for 2 classes, but 3"),
        ([BandInfo("red", 0, 1), BandInfo("red", 0, 1)], 2, "red is given more than once"),
        ([BandInfo("red", NAN, 1), BandInfo("nir", 0, 1)], 2, "band red has the mean nan"),
        ([BandInfo("red", 0, 1), BandInfo("nir", 0, -1)], 2, "nir has a standard deviation below zero"),
    ],
)
def test_bands_and_classes_that_do_not_fit_are_refused(bands, classes, said):
    legend = Legend.of([str(n) for n in range(classes)])
    with pytest.raises(ConfigError, match=said):
        Segmenter(UNet(2, 2, depth=1, width=2), bands, ModelInfo(legend))


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def as_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Trap()))


def as_torch_file(path):
    torch.save({"state_dict": {"weight": torch.ones(2)}}, path)


def as_old_torch_file(path):
    torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


def as_pickle(path):
    path.write_bytes(pickle.dumps(Trap()))


@pytest.mark.parametrize("write", [as_zip, as_torch_file, as_old_torch_file, as_pickle])
@pytest.mark.parametrize("name", ["model.pth", "model.ckpt", "model.safetensors"])
def test_pickles_are_never_read_and_the_way_to_convert_is_told(tmp_path, write, name):
    write(tmp_path / name)
    with pytest.raises(ModelFileError, match=r"could run code.*weights_only=True.*\.save\(") as refusal:
        load(tmp_path / name)
    assert name in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a whole .safetensors file"),
        (b"II*\x00 a GeoTIFF by mistake", "is a raster, not a model"),
        (struct.pack("<Q", 2**60) + b"{}", "not a whole .safetensors file"),
        (struct.pack("<Q", 9) + b'{"a": bad', "not a whole .safetensors file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=said) as refusal:
        load(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.9999])
def test_half_a_download_is_refused(tmp_path, make_segmenter, share):
    path = make_segmenter().save(tmp_path / "model.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelFileError, match=r"is not a whole \.safetensors file"):
        load(path)


def test_weights_without_a_header_are_refused(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match="without geounet's header"):
        load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format_version", 3, "format version 3; this geounet reads up to 2. Upgrade"),
        ("format_version", 0, "no format_version 1 to 2; found 0"),
        ("format_version", "1", "no format_version 1 to 2; found '1'"),
        ("format_version", True, "no format_version 1 to 2; found True"),
        ("architecture", "os.system", "needs the architecture 'os.system'"),
        ("architecture", ["unet"], "needs the architecture"),
        ("arguments", None, "arguments that are no mapping"),
        ("arguments", {"in_channels": 3}, "cannot be made"),
        ("arguments", {"in_channels": 3, "classes": 4, "__class__": 1}, "cannot be made"),
        ("arguments", {"in_channels": "3", "classes": 4}, "in_channels is a whole number"),
        ("arguments", {"in_channels": 3, "classes": 4, "depth": 10**6}, "depth is a whole number"),
        ("arguments", {"in_channels": 3, "classes": 4, "width": 10**6}, "width is a whole number"),
        ("arguments", {"in_channels": 3, "classes": 4, "depth": 8, "width": 2**14}, "among its tensors"),
        ("arguments", {"in_channels": 3, "classes": 4, "depth": 2, "width": 8192}, "its architecture expects F32"),
        ("arguments", {"in_channels": 3, "classes": 4, "depth": 2, "width": 4, "norm": "none"}, "among its tensors"),
        ("bands", {}, "bands that is no list"),
        ("bands", [], "contradicts itself: the network was made for 3 channels, but 0"),
        ("bands", [{"name": "red"}], "a band that is not"),
        ("classes", [], "contradicts itself"),
        ("classes", [{"code": 1, "name": "a"}], "contradicts itself"),
        ("classes", ["water"], "class that is no dict"),
        ("pixel_size", -10, "pixel size of -10"),
        ("pixel_size", "10", "pixel_size that is no number"),
        ("provenance", [], "provenance that is no dict"),
        ("name", 3, "name that is no str"),
        ("surprise", 3, "has the unknown surprise"),
    ],
)  # fmt: skip
def test_a_header_that_says_something_else_is_refused(rewritten, key, value, said):
    path = rewritten(lambda header, _: header.update({key: value}))
    with pytest.raises(ModelFileError, match=said) as refusal:
        load(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", None), ("mean", "0"), ("mean", None), ("mean", 1e300), ("mean", True), ("std", -1), ("percentiles", [1])],
)
def test_a_band_that_is_none_is_refused(rewritten, key, value):
    path = rewritten(lambda header, _: header["bands"][1].update({key: value}))
    with pytest.raises(ModelFileError, match=str(path)):
        load(path)


TYPED = [
    BandInfo("red", 1000.0, 200.0, 0.66, "counts", {"50": 900.0}),
    BandInfo("landcover", type=BandType("categorical", codes=(10, 20, -1))),
    BandInfo("qa", type=BandType("bitmask", bits=(3, 4, 15))),
    BandInfo("aspect", type=BandType("cyclic", period=360)),
]


def typed_model(bands=TYPED):
    channels = sum(band.type.channels for band in bands)
    return Segmenter(UNet(channels, 2, depth=1, width=2), bands, ModelInfo(Legend.of(["a", "b"]))).eval()


def test_types_of_bands_travel_in_the_model_file(tmp_path):
    model = typed_model()
    again = load(model.save(tmp_path / "model.safetensors"))
    assert again.bands == model.bands
    assert again.hash == model.hash
    raw = torch.tensor([1100.0, 20.0, 24.0, 45.0]).view(1, 4, 1, 1).repeat(2, 1, 8, 8)
    assert torch.equal(again(raw), model(raw))
    header = read(tmp_path / "model.safetensors")[1]
    assert header["format_version"] == 2  # a geounet that knows no types says to upgrade
    assert [row.get("type") for row in header["bands"]] == [
        None,
        {"kind": "categorical", "codes": [10, 20, -1]},
        {"kind": "bitmask", "bits": [3, 4, 15]},
        {"kind": "cyclic", "period": 360.0},
    ]


def test_a_model_of_continuous_bands_is_the_file_it_was_before_there_were_types():
    for name, path in bundled().items():
        assert load(name).hash == hashlib.sha256(path.read_bytes()).hexdigest()
        assert read(path)[1]["format_version"] == 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"kind": "ordinal"}, "contradicts itself: the kind of a band is one of"),
        ({"kind": "categorical", "codes": [1, 1]}, "code 1 is given more than once"),
        ({"kind": "categorical", "codes": [1, 2]}, "made for 9 channels, but 8"),
        ({"kind": "categorical"}, "landcover is categorical, but its codes are not known"),
        ({"kind": "cyclic", "period": None}, "has a period above 0"),
        ({"kind": "bitmask", "bits": [24]}, "bit 24 is not within 0 to 23"),
        ({"colour": "red"}, "but not colour"),
        ("categorical", "band type that is no dict"),
    ],
)
def test_a_band_type_that_is_none_is_refused(tmp_path, kind, said):
    path = typed_model().save(tmp_path / "model.safetensors")
    weights, header = read(path)
    header["bands"][1]["type"] = kind
    save_file(weights, path, metadata={"geounet": json.dumps(header)})
    with pytest.raises(ModelFileError, match=said) as refusal:
        load(path)
    assert str(path) in str(refusal.value)


def test_the_first_version_of_the_format_has_no_types(rewritten):
    path = rewritten(lambda header, _: header["bands"][0].update({"type": {"kind": "continuous"}}))
    with pytest.raises(ModelFileError, match="a band that is not"):
        load(path)


@pytest.mark.parametrize(("kind", "what"), [("categorical", "codes"), ("bitmask", "bits")])
def test_a_band_whose_codes_are_not_known_is_refused(kind, what):
    with pytest.raises(ConfigError, match=f"band qa is {kind}, but its {what} are not known"):
        typed_model([BandInfo("red"), BandInfo("qa", type=BandType(kind))])


@pytest.mark.parametrize("hole", [NAN, float("inf"), -float("inf")])
def test_codes_flags_and_angles_without_data_are_zeros_in_training_and_prediction_alike(hole):
    model = typed_model()
    image = torch.tensor([[1100.0, 20.0, 24.0, 90.0], [hole] * 4]).T.view(1, 4, 1, 2)
    filled = torch.where(torch.isfinite(image), image, model.mean.view(1, -1, 1, 1))
    expected = torch.tensor([[0.5, 0, 1, 0, 1, 1, 0, 1, 0], [0] * 9]).T.view(1, 9, 1, 2)
    torch.testing.assert_close(model.prepare(filled), expected, atol=1e-6, rtol=0)
    tall = image.repeat(1, 1, 4, 2)
    assert torch.equal(model(tall), model(filled.repeat(1, 1, 4, 2)))


def test_a_header_that_lacks_a_key_is_refused(rewritten):
    path = rewritten(lambda header, _: header.pop("bands"))
    with pytest.raises(ModelFileError, match="lacks bands"):
        load(path)


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"format_version": NaN}', "[" * 100_000])
def test_a_header_that_is_no_json_mapping_is_refused(tmp_path, text):
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"geounet": text})
    with pytest.raises(ModelFileError, match=r"the header of .*model\.safetensors"):
        load(tmp_path / "model.safetensors")


def spoil(name, tensor):
    def change(_, weights):
        if tensor is None:
            del weights[name]
        else:
            weights[name] = tensor

    return change


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("head.bias", None, "lacks head.bias among its tensors"),
        ("tail.bias", torch.ones(2), "has the unknown tail.bias among its tensors"),
        ("head.bias", torch.ones(5), r"head.bias as F32 of shape \(5,\).*expects F32 of shape \(4,\)"),
        ("head.bias", torch.ones(4, dtype=torch.float64), "head.bias as F64"),
        ("head.bias", torch.full((4,), NAN), r"NaN or infinite \(head.bias\)"),
        ("head.bias", torch.full((4,), float("inf")), "NaN or infinite"),
    ],
)
def test_tensors_that_do_not_fit_the_network_are_refused(rewritten, name, tensor, said):
    with pytest.raises(ModelFileError, match=said):
        load(rewritten(spoil(name, tensor)))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="no model file"):
        Segmenter.load(tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match="is a folder"):
        load(tmp_path)


def test_a_bundled_model_is_found_by_name_and_a_wrong_name_lists_them(tmp_path, monkeypatch, make_segmenter):
    path = make_segmenter().save(tmp_path / "water.safetensors")
    monkeypatch.setattr(loading, "bundled", lambda: {"land": tmp_path / "land.safetensors", "water": path})
    assert load("water").info.name == "test"
    with pytest.raises(ModelFileError, match=r"no model file wood.*bundled: land, water\."):
        load("wood")


def test_a_file_wins_over_a_bundled_model_of_its_name(tmp_path, monkeypatch, make_segmenter):
    monkeypatch.chdir(tmp_path)
    make_segmenter().save(tmp_path / "water.safetensors").rename("water")
    monkeypatch.setattr(loading, "bundled", lambda: {"water": tmp_path / "elsewhere.safetensors"})
    assert load("water").info.name == "test"


def test_every_bundled_model_loads_and_answers():
    for path in bundled().values():
        model = load(path)
        side = 2 * model.stride
        logits = model(torch.full((1, len(model.bands), side, side), NAN))
        assert logits.shape == (1, len(model.legend), side, side)
        assert torch.isfinite(logits).all()
