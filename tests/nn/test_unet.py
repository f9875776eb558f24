import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from geounet.errors import ConfigError
from geounet.nn.blocks import Residual
from geounet.nn.unet import RAREST, UNet, pad_to, set_prior


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@settings(max_examples=12, deadline=None)
@given(
    depth=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    norm=st.sampled_from(["batch", "group", "none"]),
    upsample=st.sampled_from(["transposed", "bilinear"]),
)
def test_every_pixel_gets_a_score_for_every_class_whatever_the_size(depth, height, width, norm, upsample):
    network = UNet(3, 5, depth=depth, width=4, norm=norm, upsample=upsample).eval()
    logits = network(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 5, height, width)
    assert torch.isfinite(logits).all()


def test_an_odd_image_is_padded_by_its_own_edge_and_cropped_back():
    network = UNet(2, 3, depth=3, width=4).eval()
    image = torch.randn(1, 2, 13, 22)
    padded = functional.pad(image, (0, 2, 0, 3), mode="replicate")  # 24 × 16
    assert_close(network(image), network(padded)[..., :13, :22], rtol=0, atol=0)


def test_an_image_that_fits_is_not_copied():
    image = torch.zeros(1, 1, 16, 8)
    assert pad_to(image, 8) is image


def test_one_pixel_may_be_an_image():
    assert pad_to(torch.full((1, 1, 1, 1), 7.0), 4).tolist() == [[[[7.0] * 4] * 4]]


@pytest.mark.parametrize("upsample", ["transposed", "bilinear"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("options", [{}, {"residual": True}, {"convolutions": "valid"}], ids=str)
def test_the_receptive_field_is_what_pulses_reach(depth, upsample, options):
    network = UNet(1, 1, depth=depth, width=2, norm="none", upsample=upsample, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # positive, so that no pulse is lost in a ReLU or a maximum
            parameter.fill_(1 / parameter[0].numel() if parameter.ndim > 1 else 0.0)
        side, rows = 2 * network.receptive_field // network.stride * network.stride, network.stride
        pulses = torch.eye(side).view(side, 1, 1, side).repeat(1, 1, rows, 1)  # the image's columns, one a sample
        reached = network(pulses)[:, 0, 0] > 0  # (column lit, column seen)
    middle = slice(network.receptive_field // 2, -network.receptive_field // 2)
    assert reached.sum(dim=0)[middle].max() == network.receptive_field
    far = (torch.arange(side)[:, None] - torch.arange(side)).abs() * reached
    assert far[:, middle].max() == network.margin


@pytest.mark.parametrize(("depth", "expected"), [(1, 18), (2, 44), (3, 100), (4, 204), (5, 412)])
def test_receptive_fields_are_those_of_the_docstring(depth, expected):
    assert UNet(1, 1, depth=depth, width=1).receptive_field == expected


@pytest.mark.parametrize("upsample", ["transposed", "bilinear"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_chip_with_its_margin_has_the_scores_of_the_whole_image(depth, upsample):
    torch.manual_seed(0)
    network = UNet(2, 2, depth=depth, width=3, upsample=upsample).eval().double()
    margin, stride = network.margin, network.stride
    image = torch.randn(1, 2, stride, 2 * margin + 6 * stride, dtype=torch.float64)
    start = 2 * stride
    chip = image[..., start:]
    inner = slice(margin, None)
    whole, alone = network(image)[..., start:], network(chip)
    assert_close(alone[..., inner], whole[..., inner], rtol=0, atol=1e-12)
    assert not torch.allclose(alone[..., :margin], whole[..., :margin])


@pytest.mark.parametrize(("depth", "margin"), [(2, 23), (3, 51), (4, 107), (5, 219)])
def test_margins_are_those_of_the_docstring(depth, margin):
    assert UNet(1, 1, depth=depth, width=1).margin == margin


def test_the_smallest_unet_has_the_parameters_counted_by_hand():
    down = (9 + 1) + (9 + 1) + (18 + 2) + (36 + 2)  # 1 → 1 → 1, 1 → 2 → 2, 3 × 3 with bias
    up = (2 * 1 * 4 + 1) + (18 + 1) + (9 + 1)  # 2 × 2 transposed, then 2 → 1 → 1
    assert parameters(UNet(1, 2, depth=1, width=1, norm="none")) == down + up + (2 + 2)


@pytest.mark.parametrize(
    ("depth", "width", "expected"),
    [(2, 32, 468_297), (2, 64, 1_866_377), (3, 32, 1_928_137), (3, 64, 7_702_409)]  # noqa: RUF005
    + [(4, 32, 7_764_169), (4, 64, 31_039_881), (5, 32, 31_101_641), (5, 64, 124_376_457)],
)
def test_parameters_are_those_of_the_docstring(depth, width, expected):
    with torch.device("meta"):
        network = UNet(6, 9, depth=depth, width=width)
    assert parameters(network) == expected
    assert f"{expected:,}".replace(",", " ") in UNet.__doc__


def test_no_level_is_wider_than_asked():
    network = UNet(3, 2, depth=4, width=8, max_width=20)
    widths = [level[0].out_channels for level in network.down]
    assert widths == [8, 16, 20, 20, 20]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 2, 32, 32)


def test_weights_are_drawn_as_he_says():
    network = UNet(64, 2, depth=1, width=128, norm="none")
    first = network.down[0][0]
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.01)
    assert not first.bias.any()


def test_activations_neither_vanish_nor_explode_through_a_deep_plain_network():
    torch.manual_seed(0)
    network = UNet(4, 6, depth=4, width=16, norm="none").eval()
    assert 0.2 < network(torch.randn(2, 4, 64, 64)).std().item() < 5


def test_equal_seeds_give_equal_networks():
    torch.manual_seed(3)
    one = UNet(2, 2, depth=2, width=4).state_dict()
    torch.manual_seed(3)
    two = UNet(2, 2, depth=2, width=4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_arguments_make_the_same_layers_again():
    network = UNet(5, 3, depth=2, width=6, norm="group", upsample="bilinear", dropout=0.25, max_width=9)
    again = UNet(**network.arguments)
    assert again.arguments == network.arguments
    again.load_state_dict(network.state_dict())
    image = torch.randn(1, 5, 8, 8)
    assert torch.equal(network.eval()(image), again.eval()(image))


def test_arguments_that_came_later_are_kept_where_they_say_something():
    """A model file holds them all, and one made before is to keep its bytes, and so its hash."""
    assert UNet(1, 2, depth=1, width=2).arguments.keys().isdisjoint({"convolutions", "residual", "sigmoid"})
    network = UNet(1, 2, depth=1, width=2, convolutions="valid", residual=True, sigmoid=True)
    again = UNet(**network.arguments)
    assert again.arguments == network.arguments
    assert again.arguments.items() >= {"convolutions": "valid", "residual": True, "sigmoid": True}.items()


def test_one_channel_tells_two_classes_apart_as_a_sigmoid_does():
    torch.manual_seed(0)
    network = UNet(2, 2, depth=1, width=4, sigmoid=True).eval()
    image = torch.randn(1, 2, 8, 8)
    labels = torch.randint(0, 2, (1, 8, 8))
    with torch.no_grad():
        logits = network(image)
    score = logits[:, 1]
    assert network.head.out_channels == 1
    assert_close(logits.softmax(dim=1)[:, 1], score.sigmoid())
    binary = functional.binary_cross_entropy_with_logits(score, labels.float())
    assert_close(functional.cross_entropy(logits, labels), binary)


@pytest.mark.parametrize("convolutions", ["same", "valid"])
def test_a_residual_level_adds_what_it_was_given(convolutions):
    """With a body of zeros and a shortcut of ones, each channel is the sum of those before, where that is positive."""
    level = Residual(2, 3, "none", convolutions)
    with torch.no_grad():
        for convolution in level.body[0], level.body[2], level.shortcut[0]:
            convolution.weight.fill_(float(convolution is level.shortcut[0]))
            convolution.bias.zero_()
    image = torch.randn(1, 2, 8, 8)
    inner = image if convolutions == "same" else image[..., 2:-2, 2:-2]
    assert_close(level(image), inner.sum(dim=1, keepdim=True).relu().expand(1, 3, *inner.shape[2:]))


def test_a_residual_level_of_as_many_channels_has_no_weights_in_its_shortcut():
    level = Residual(4, 4, "batch", "same").eval()
    for parameter in level.parameters():
        torch.nn.init.zeros_(parameter)
    image = torch.rand(1, 4, 6, 6)
    assert torch.equal(level(image), image)


@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_statistics_a_sample_does_not_feel_the_others(norm):
    network = UNet(2, 2, depth=2, width=4, norm=norm).train()
    one, two = torch.randn(2, 1, 2, 16, 16)
    assert_close(network(torch.cat([one, two]))[:1], network(one))


def test_dropout_is_for_training_alone():
    network = UNet(2, 2, depth=2, width=8, norm="none", dropout=0.5)
    image = torch.randn(1, 2, 16, 16)
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"convolutions": "valid"}], ids=str)
def test_gradients_reach_every_parameter(options):
    torch.manual_seed(0)
    network = UNet(3, 4, depth=3, width=8, **options)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_channels_last_bfloat16_stays_channels_last_and_close():
    torch.manual_seed(0)
    network = UNet(3, 4, depth=2, width=16).eval().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fast = network(image)
    exact = network(image)
    assert fast.is_contiguous(memory_format=torch.channels_last)
    assert_close(fast.float(), exact, rtol=0.1, atol=0.05 * exact.abs().max().item())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("upsample", ["transposed", "bilinear"])
def test_a_trace_of_a_small_image_serves_larger_ones(upsample):
    network = UNet(2, 3, depth=2, width=4, upsample=upsample).eval()
    traced = torch.jit.trace(network, torch.zeros(1, 2, 8, 8), check_trace=False)
    assert "pad" not in str(traced.inlined_graph).replace("padding", "")
    image = torch.randn(2, 2, 24, 40)
    assert_close(traced(image), network(image))


def test_the_prior_is_what_a_network_says_that_has_seen_nothing():
    network = UNet(2, 3, depth=1, width=2)
    set_prior(network, [600, 300, 100])
    torch.nn.init.zeros_(network.head.weight)
    probs = network.eval()(torch.randn(1, 2, 4, 4)).softmax(dim=1)
    assert_close(probs, torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1).expand(1, 3, 4, 4))


def test_a_class_never_seen_is_rare_but_possible():
    network = UNet(1, 2, depth=1, width=2)
    set_prior(network, [1.0, 0.0])
    assert network.head.bias[1].item() == pytest.approx(math.log(RAREST))


@pytest.mark.parametrize("frequencies", [[1, 1], [0, 0, 0], [1, -1, 1], [1, float("nan"), 1], [1, float("inf"), 1]])
def test_a_prior_that_is_none_is_refused(frequencies):
    with pytest.raises(ConfigError, match="3 class frequencies"):
        set_prior(UNet(1, 3, depth=1, width=2), frequencies)


def test_a_network_without_a_head_has_no_prior():
    network = torch.nn.Module()
    network.head = torch.nn.Identity()
    with pytest.raises(ConfigError, match="no head"):
        set_prior(network, [1.0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"in_channels": 0}, "in_channels is a whole number from 1"),
        ({"classes": True}, "classes is a whole number"),
        ({"depth": 0}, "depth is a whole number from 1 to 8"),
        ({"depth": 9}, "depth is a whole number from 1 to 8"),
        ({"width": 2.5}, "width is a whole number"),
        ({"max_width": 0}, "max_width is a whole number"),
        ({"norm": "layer"}, "norm is one of batch, group, none"),
        ({"upsample": ["bilinear"]}, "upsample is one of transposed, bilinear"),
        ({"dropout": 1.0}, "dropout is a share"),
        ({"dropout": float("nan")}, "dropout is a share"),
        ({"convolutions": "full"}, "convolutions is one of same, valid, not 'full'"),
        ({"residual": 1}, "residual is true or false, not 1"),
        ({"sigmoid": "yes"}, "sigmoid is true or false"),
        ({"sigmoid": True, "classes": 1}, "two classes apart by one channel, but there are 1 classes"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        UNet(**{"in_channels": 1, "classes": 2, **arguments})
