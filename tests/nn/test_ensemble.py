"""An ensemble's softmax is the mean of its members', each of which reads the bands as it did alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

from geounet.cli.info import model_card
from geounet.core.bandtypes import BandType
from geounet.core.legend import Legend
from geounet.errors import ConfigError, ModelFileError
from geounet.nn.encoders import EncoderUNet
from geounet.nn.ensemble import Ensemble
from geounet.nn.features import Features
from geounet.nn.runtime import compile
from geounet.nn.segmenter import ARCHITECTURES, BandInfo, ModelInfo, Segmenter, ensemble, load
from geounet.nn.unet import UNet
from geounet.nn.unetpp import UNetPlusPlus

LEGEND = Legend.of({10: "land", 80: "water", 95: "ice"})


class Pixelwise(torch.nn.Module):
    """Looks at one pixel at a time."""

    stride = 1

    def __init__(self, in_channels, classes):
        super().__init__()
        self.arguments = {"in_channels": in_channels, "classes": classes}
        self.head = torch.nn.Conv2d(in_channels, classes, 1)

    def forward(self, image):
        return self.head(image)


@pytest.fixture
def pixelwise(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "pixelwise", Pixelwise)


def says(bias, **info):
    """Model of one band that holds the same for likely everywhere."""
    network = Pixelwise(1, len(bias))
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = torch.tensor(bias)
    return Segmenter(network, [BandInfo("red")], ModelInfo(Legend.of(["land", "water"]), **info)).eval()


def trained(network, *, mean=1000.0, std=300.0, features=None, legend=LEGEND, seed=0, names="ab", **info):
    """Model of two bands and random weights whose statistics are its own."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
    bands = [
        BandInfo(name, mean + 100 * n, std, unit="counts", percentiles={"50": mean}) for n, name in enumerate(names)
    ]
    return Segmenter(network, bands, ModelInfo(legend, **{"name": f"model {seed}", **info}), features).eval()


@pytest.fixture(scope="module")
def motley():
    """Models of every architecture, bands brought to other scales by each."""
    torch.manual_seed(1)
    return [
        trained(UNet(2, 3, depth=2, width=4), mean=900.0, seed=1),
        trained(UNet(3, 3, depth=1, width=4, convolutions="valid"), std=500.0, features=Features(True, 80.0), seed=2),
        trained(UNetPlusPlus(2, 3, depth=2, width=4), mean=1300.0, seed=3),
        trained(EncoderUNet(2, 3, encoder_depth=3, norm="group"), seed=4),
    ]


def image_of(shape=(2, 2, 24, 40), seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(1000, 300, shape).astype(np.float32))


def mean_of(models, image):
    with torch.no_grad():
        return torch.stack([model(image).double().softmax(1) for model in models]).mean(0)


@pytest.mark.usefixtures("pixelwise")
def test_two_that_contradict_each_other_are_undecided():
    sure, unsure = np.log([0.9, 0.1]).tolist(), np.log([0.3, 0.7]).tolist()
    logits = ensemble([says(sure), says(unsure)])(torch.zeros(1, 1, 1, 1))
    assert_close(logits.exp().flatten(), torch.tensor([0.6, 0.4]))  # (0.9 + 0.3) / 2, (0.1 + 0.7) / 2


def test_its_softmax_is_the_mean_of_the_members_on_every_scale(motley):
    image = image_of()
    with torch.no_grad():
        found = ensemble(motley)(image)
    assert found.dtype == torch.float32
    assert_close(found.softmax(1).double(), mean_of(motley, image), rtol=0, atol=1e-6)
    assert_close(found.exp(), found.softmax(1), rtol=0, atol=1e-6)  # the logits are logarithms of probabilities


@pytest.mark.usefixtures("pixelwise")
def test_members_that_are_sure_to_the_last_bit_leave_finite_scores():
    logits = ensemble([says([300.0, -300.0]), says([200.0, -200.0])])(torch.zeros(1, 1, 1, 1))
    assert torch.isfinite(logits).all()
    assert logits.softmax(1).flatten().tolist() == [1.0, 0.0]


@settings(max_examples=5)
@given(st.permutations(range(4)))
def test_the_order_of_the_members_does_not_matter(motley, order):
    image = image_of((1, 2, 16, 16))
    with torch.no_grad():
        one, other = ensemble(motley)(image), ensemble([motley[n] for n in order])(image)
    assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_every_backend_gives_the_mean_of_what_it_gives_of_the_members(motley, backend):
    image = image_of((2, 2, 32, 64)).numpy()

    def run(model):
        return compile(model, (32, 64), device="cpu", backend=backend, precision="fp32", threads=1)(image)

    expected = np.mean([run(model) for model in motley], axis=0)
    np.testing.assert_allclose(run(ensemble(motley)), expected, rtol=0, atol=2e-5)


def test_a_file_gives_the_same_ensemble_back(motley, tmp_path):
    joined = ensemble(motley)
    path = joined.save(tmp_path / "four.safetensors")
    again = load(path)
    assert again.hash == joined.hash
    image = image_of()
    with torch.no_grad():
        assert torch.equal(again(image), joined(image))
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["geounet"])["architecture"] == "ensemble"


def test_models_are_named_by_files_and_left_as_they_are(motley, tmp_path):
    before = motley[0].hash
    paths = [model.save(tmp_path / f"{n}.safetensors") for n, model in enumerate(motley)]
    joined = ensemble(paths)
    joined.network.members[0].network.head.bias.data += 1
    assert load(paths[0]).hash == before == motley[0].hash
    assert [row["hash"] for row in joined.info.provenance["members"]] == [model.hash for model in motley]


def test_it_strides_and_looks_as_far_as_its_largest_member(motley):
    networks = [UNet(2, 3, depth=1, width=2, convolutions="valid"), UNet(2, 3, depth=3, width=2)]
    found = ensemble([trained(network, seed=n) for n, network in enumerate(networks)]).network
    assert (found.stride, found.margin, found.receptive_field) == (8, 51, 100)  # as in the table of `UNet`
    assert found.border == networks[0].border == 8
    assert ensemble(motley).network.margin is None  # nobody knows how far an encoder sees


def test_scores_within_the_margin_are_those_of_the_whole_image():
    models = [trained(UNet(2, 3, depth=depth, width=2), seed=depth) for depth in (1, 2)]
    joined = ensemble(models)
    margin, stride = joined.network.margin, joined.stride
    side = -(-2 * margin // stride) * stride + 2 * stride
    image = image_of((1, 2, side + 4 * stride, side + 4 * stride))
    inside = slice(margin, side - margin)
    with torch.no_grad():
        whole, part = joined(image), joined(image[..., stride : stride + side, stride : stride + side])
    assert_close(part[..., inside, inside], whole[..., stride:, stride:][..., inside, inside], rtol=0, atol=1e-5)


def test_its_bands_are_those_of_all_training_pixels_in_equal_parts():
    one, two = (trained(UNet(2, 3, depth=1, width=2), mean=mean, std=3.0, seed=int(mean)) for mean in (10.0, 18.0))
    band = ensemble([one, two]).bands[0]
    assert band.mean == 14  # (10 + 18) / 2
    assert band.std == 5  # √(3² + 4²): each lies 4 from the common mean
    assert band.percentiles == {"50": 14}


def test_a_member_does_not_see_codes_that_only_others_have_met():
    def coded(codes, seed):
        bands = [BandInfo("cover", type=BandType("categorical", codes=codes)), BandInfo("red", 50.0 * seed, 9.0)]
        torch.manual_seed(seed)
        return Segmenter(UNet(len(codes) + 1, 3, depth=1, width=4), bands, ModelInfo(LEGEND)).eval()

    models = [coded((10, 30), 1), coded((20, 30, 80), 2)]
    joined = ensemble(models)
    assert joined.types[0].codes == (10, 20, 30, 80)
    rng = np.random.default_rng(0)
    image = np.stack([rng.choice([10, 20, 30, 80, 99], (2, 8, 8)), rng.normal(100, 20, (2, 8, 8))], axis=1)
    image = torch.from_numpy(image.astype(np.float32))
    expected = mean_of(models, image)
    with torch.no_grad():
        assert_close(joined(image).softmax(1).double(), expected, rtol=0, atol=1e-6)
    converted = compile(joined, (8, 8), device="cpu", backend="openvino", precision="fp32", threads=1)
    np.testing.assert_allclose(converted(image.numpy()), expected, rtol=0, atol=1e-5)


def with_bands(model, **changes):
    bands = [replace(band, **changes) for band in model.bands]
    return Segmenter(model.network, bands, model.info)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"names": "ba"}, r"the same bands; the first has a, b, number 2 \(model 5\) has b, a"),
        ({"legend": Legend.of({10: "land", 80: "water", 90: "ice"})}, r"classes.*95 ice, number 2.*90 ice"),
        ({"pixel_size": 30.0}, r"one pixel size, but here it goes from 10 to 30 m"),
    ],
)
def test_models_for_other_scenes_or_classes_are_refused(other, message):
    first = trained(UNet(2, 3, depth=1, width=2), pixel_size=10.0)
    with pytest.raises(ConfigError, match=message):
        ensemble([first, trained(UNet(2, 3, depth=1, width=2), seed=5, **{"pixel_size": 10.0, **other})])


def test_models_of_other_units_or_kinds_of_bands_are_refused():
    first = trained(UNet(2, 3, depth=1, width=2))
    with pytest.raises(ConfigError, match="same units; the first has counts, counts"):
        ensemble([first, with_bands(first, unit="reflectance")])
    angles = Segmenter(
        UNet(4, 3, depth=1, width=2), [BandInfo(n, unit="counts", type=BandType("cyclic", period=360)) for n in "ab"],
        first.info,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="same kinds of bands; the first has continuous, continuous"):
        ensemble([first, angles])


@pytest.mark.usefixtures("pixelwise")
def test_what_is_no_set_of_single_models_is_refused(motley):
    with pytest.raises(ConfigError, match="two models or more"):
        ensemble(motley[:1])
    with pytest.raises(ConfigError, match="join the models that it was made of"):
        ensemble([motley[0], ensemble(motley)])
    unknown = Segmenter(torch.nn.Conv2d(1, 2, 1), says([0.0, 1.0]).bands, says([0.0, 1.0]).info)
    with pytest.raises(ConfigError, match="no known architecture"):
        ensemble([says([0.0, 1.0]), unknown])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda member: member.update(architecture="ensemble"), "a member of an ensemble is a single model"),
        (lambda member: member.update(architecture="os.system"), "no architecture 'os.system'"),
        (lambda member: member.update(architecture=["unet"]), "cannot be made"),
        (lambda member: member.update(channels=[0, 7]), "reads channels beyond the 2"),
        (lambda member: member.update(quantities=[-1]), "reads channels beyond"),
        (lambda member: member.update(center=[1.0]), "2 channels, but has 1 means"),
        (lambda member: member.update(center=[1.0, None]), "cannot be made"),
        (lambda member: member.update(spread=[1.0, 0.0]), "has the spread"),
        (lambda member: member.update(spread=[1.0, 1e300]), "has the spread"),
        (lambda member: member.update(differences=True), "was made for 2 channels, but 3 are given"),
        (lambda member: member["arguments"].update(classes=4), "was made for 4 classes, but 3 are given"),
        (lambda member: member.update(command="rm"), "cannot be made"),
        (lambda member: member.clear(), "cannot be made"),
    ],
)
def test_a_file_whose_members_are_no_members_is_refused(tmp_path, change, message):
    joined = ensemble([trained(UNet(2, 3, depth=1, width=2), seed=seed) for seed in (1, 2)])
    path = joined.save(tmp_path / "two.safetensors")
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["geounet"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header["arguments"]["members"][1])
    save_file(weights, path, metadata={"geounet": json.dumps(header)})
    with pytest.raises(ModelFileError, match=message):
        load(path)


@pytest.mark.parametrize("members", [[], [{}], "unet", {"a": 1, "b": 2}])
def test_fewer_than_two_members_are_no_ensemble(members):
    with pytest.raises(ConfigError, match="two members or more"):
        Ensemble(2, 3, members=members)


def test_its_card_shows_the_members(motley):
    joined = ensemble(motley)
    lines = [line for line in model_card(joined).splitlines() if line.startswith("  member")]
    assert [line.split()[2].strip(",") for line in lines] == ["UNet", "UNet", "UNetPlusPlus", "EncoderUNet"]
    for line, model in zip(lines, motley, strict=True):
        assert f"hash {model.short_hash}" in line
        assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in line
