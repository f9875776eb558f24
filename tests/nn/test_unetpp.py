import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.nn import functional
from torch.testing import assert_close

from geounet.core.legend import Legend
from geounet.errors import ConfigError
from geounet.nn.runtime import compile, openvino, to_openvino
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from geounet.nn.unet import UNet
from geounet.nn.unetpp import UNetPlusPlus


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def lively(network):
    """In evaluation, with batch statistics that differ from those of a new network."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def by_the_paper(network, image, depth):
    """Answer of a depth, by equation 1 of the paper."""

    def found(i, j):
        if j == 0:
            return network.down[i](functional.max_pool2d(found(i - 1, 0), 2) if i else image)
        risen = network.rise[i][j - 1](found(i + 1, j - 1))
        return network.up[i][j - 1](torch.cat([*(found(i, k) for k in range(j)), risen], dim=1))

    return network.heads[depth - 1](found(0, depth))


@pytest.mark.parametrize("options", [{}, {"upsample": "bilinear", "norm": "group"}, {"residual": True}], ids=str)
def test_answers_are_those_of_the_papers_equation(options):
    torch.manual_seed(0)
    network = lively(UNetPlusPlus(2, 3, depth=3, width=4, **options))
    image = torch.randn(1, 2, 16, 24)
    for depth, logits in enumerate(network.supervised(image), start=1):
        assert_close(logits, by_the_paper(network, image, depth))


def test_of_depth_one_it_is_a_unet():
    nested = lively(UNetPlusPlus(2, 3, depth=1, width=4))
    unet = UNet(2, 3, depth=1, width=4).eval()
    names = {"rise.0.0": "rise.0", "up.0.0": "up.0", "heads.0": "head"}
    weights = nested.state_dict()
    for long, short in names.items():
        weights = {short + name.removeprefix(long) if name.startswith(long) else name: v for name, v in weights.items()}
    unet.load_state_dict(weights)
    image = torch.randn(2, 2, 13, 9)
    assert_close(nested(image), unet(image), rtol=0, atol=0)


@pytest.mark.parametrize(("make", "millions"), [(UNet, 7.76), (UNetPlusPlus, 9.04)])
def test_parameters_are_those_of_the_papers_table(make, millions):
    with torch.device("meta"):
        network = make(1, 1, depth=4, width=32, norm="none")
    assert round(parameters(network) / 1e6, 2) == millions


@settings(max_examples=10, deadline=None)
@given(
    depth=st.integers(1, 3),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    upsample=st.sampled_from(["transposed", "bilinear"]),
    sigmoid=st.booleans(),
)
def test_every_pixel_gets_scores_from_every_head_whatever_the_size(depth, height, width, upsample, sigmoid):
    network = UNetPlusPlus(3, 2, depth=depth, width=4, upsample=upsample, sigmoid=sigmoid).eval()
    image = torch.randn(2, 3, height, width)
    answers = network.supervised(image)
    assert [logits.shape for logits in answers] == depth * [(2, 2, height, width)]
    assert torch.equal(answers[-1], network(image))


def test_without_deep_supervision_there_is_one_answer_the_deepest():
    torch.manual_seed(0)
    network = lively(UNetPlusPlus(2, 3, depth=3, width=4, deep_supervision=False))
    full = lively(UNetPlusPlus(2, 3, depth=3, width=4))
    weights = network.state_dict()
    heads = {name.replace("heads.0", "heads.2"): value for name, value in weights.items()}
    full.load_state_dict({**full.state_dict(), **heads})
    image = torch.randn(1, 2, 8, 8)
    (answer,) = network.supervised(image)
    assert_close(answer, full(image))


@pytest.mark.parametrize("upsample", ["transposed", "bilinear"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_receptive_field_and_the_margin_are_what_pulses_reach(depth, upsample):
    network = UNetPlusPlus(1, 1, depth=depth, width=2, norm="none", upsample=upsample).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():  # positive, so that no pulse is lost in a ReLU or a maximum
            parameter.fill_(1 / parameter[0].numel() if parameter.ndim > 1 else 0.0)
        side, rows = 2 * network.margin + network.stride, network.stride
        side += -side % network.stride
        pulses = torch.eye(side, dtype=torch.float64).view(side, 1, 1, side).repeat(1, 1, rows, 1)
        reached = network(pulses)[:, 0, 0] > 0  # (column lit, column seen)
    seen = range(network.margin, side - network.margin)
    lit = {column: reached[:, column].nonzero().flatten() for column in seen}
    assert max(len(columns) for columns in lit.values()) == network.receptive_field
    assert max((columns - column).abs().max().item() for column, columns in lit.items()) == network.margin
    assert network.receptive_field == UNet(1, 1, depth=depth, width=1, upsample=upsample).receptive_field


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_cut_back_it_says_what_its_head_of_that_depth_said(depth):
    torch.manual_seed(0)
    network = lively(UNetPlusPlus(2, 3, depth=3, width=4, dropout=0.5))
    pruned = network.prune(depth)
    image = torch.randn(2, 2, 16, 24)
    assert_close(pruned(image), network.supervised(image)[depth - 1], rtol=0, atol=0)
    assert pruned.stride == 2**depth
    assert pruned.arguments == {**network.arguments, "depth": depth}
    assert not pruned.training
    assert depth == 3 or parameters(pruned) < parameters(network) / 2


def test_what_was_cut_back_has_weights_of_its_own():
    network = UNetPlusPlus(1, 2, depth=2, width=2)
    pruned = network.prune(1)
    before = network.heads[0].weight.clone()
    with torch.no_grad():
        pruned.heads[0].weight.zero_()
    assert torch.equal(network.heads[0].weight, before)
    assert all(parameter.requires_grad for parameter in pruned.parameters())


@pytest.mark.parametrize("depth", [0, 3, True, 1.0])
def test_it_is_not_cut_back_to_what_it_has_not(depth):
    with pytest.raises(ConfigError, match="depth from 1 to 2, not"):
        UNetPlusPlus(1, 2, depth=2, width=2).prune(depth)


def test_a_network_of_one_answer_is_not_cut_back():
    with pytest.raises(ConfigError, match="make it with deep_supervision"):
        UNetPlusPlus(1, 2, depth=2, width=2, deep_supervision=False).prune(1)


def test_gradients_of_all_answers_reach_every_parameter():
    torch.manual_seed(0)
    network = UNetPlusPlus(3, 4, depth=3, width=8)
    torch.stack(network.supervised(torch.randn(2, 3, 16, 16))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_dropout_is_for_training_alone():
    network = UNetPlusPlus(2, 2, depth=2, width=8, norm="none", dropout=0.5)
    image = torch.randn(1, 2, 16, 16)
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize("options", [{}, {"upsample": "bilinear", "residual": True}, {"sigmoid": True}], ids=str)
def test_a_model_of_it_is_saved_loaded_and_run_by_torch_and_openvino(tmp_path, options):
    torch.manual_seed(0)
    network = lively(UNetPlusPlus(2, 2, depth=2, width=4, **options))
    bands = [BandInfo("red", 100.0, 20.0), BandInfo("nir", 100.0, 20.0)]
    made = Segmenter(network, bands, ModelInfo(Legend.of(["land", "water"]))).eval()
    model = Segmenter.load(made.save(tmp_path / "model.safetensors"))
    assert isinstance(model.network, UNetPlusPlus)
    assert model.hash == made.hash
    batch = 100 + 20 * torch.randn(2, 2, 16, 24)
    with torch.no_grad():
        expected = made(batch).softmax(dim=1).numpy()
    for backend in ("torch", "openvino"):
        forward = compile(model, (16, 24), device="cpu", backend=backend, precision="fp32", threads=1)
        assert forward.backend == backend
        assert_allclose(forward(batch.numpy()), expected, atol=2e-5)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    any_size = openvino().Core().compile_model(to_openvino(model), "CPU", settings)
    assert_allclose(any_size(batch.numpy())[0], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"depth": 9}, "depth is a whole number from 1 to 8"),
        ({"norm": "layer"}, "norm is one of batch, group, none"),
        ({"deep_supervision": 1}, "deep_supervision is true or false, not 1"),
        ({"residual": "yes"}, "residual is true or false"),
        ({"sigmoid": True, "classes": 3}, "two classes apart by one channel, but there are 3 classes"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        UNetPlusPlus(**{"in_channels": 1, "classes": 2, **arguments})
