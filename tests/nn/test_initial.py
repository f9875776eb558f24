import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from geounet.errors import ConfigError
from geounet.nn.blocks import Residual
from geounet.nn.initial import initialise, set_prior
from geounet.nn.unet import UNet
from geounet.nn.unetpp import UNetPlusPlus

WIDTH, LAYERS = 128, 6


def plain_stack():
    layers = []
    for _ in range(LAYERS):
        layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="circular"), nn.ReLU()]
    return nn.Sequential(*layers)


def mean_squares(stack, image):
    """Mean square of what leaves each ReLU; biases are zero, so it is what the next layer's variance is made from."""
    found = []
    with torch.no_grad():
        for layer in stack:
            image = layer(image)
            if isinstance(layer, nn.ReLU):
                found.append(image.square().mean().item())
    return found


@pytest.mark.parametrize(
    ("scheme", "ratio"),
    [
        pytest.param("he", 1.0, id="he: ½ · N · 2/N"),
        pytest.param("gaussian", 1.0, id="gaussian: ½ · N · 2/N"),
        pytest.param("orthogonal", 1.0, id="orthogonal: ½ · √2²"),
        pytest.param("xavier", 0.5, id="xavier: ½ · N · 2/(N + M), N = M"),
    ],
)
def test_each_layer_changes_the_mean_square_by_its_ratio(scheme, ratio):
    """Before a ReLU the variance is N std² q, after it the mean square half of that, q being that of the layer before.

    Of the C channels, each a draw, that mean square is taken: a half-normal square has a variance of 5 times its mean
    squared, so L layers stray from the rule by a factor of exp(√(5 L / C)) at most, where all pixels are alike; three
    of these are allowed.
    """
    torch.manual_seed(0)
    stack = plain_stack()
    initialise(stack, scheme)
    image = torch.randn(1, WIDTH, 8, 8)
    image /= image.square().mean().sqrt()
    for depth, found in enumerate(mean_squares(stack, image), start=1):
        stray = math.exp(3 * math.sqrt(5 * depth / WIDTH))
        assert ratio**depth / stray < found < ratio**depth * stray


def test_xavier_fades_behind_relus_where_he_does_not():
    """64 times in six layers; the draws are the same but for their size, and ReLU keeps the factor."""
    image = torch.randn(1, WIDTH, 4, 4)
    last = {}
    for scheme in ("he", "xavier"):
        torch.manual_seed(1)
        stack = plain_stack()
        initialise(stack, scheme)
        last[scheme] = mean_squares(stack, image)[-1]
    assert last["he"] / last["xavier"] == pytest.approx(2**LAYERS, rel=1e-4)


@pytest.mark.parametrize(
    ("scheme", "convolution", "transposed", "head"),
    [
        pytest.param("he", 2 / 576, 1 / 128, 1 / 64, id="he"),
        pytest.param("gaussian", 2 / 576, 2 / 128, 2 / 64, id="gaussian: N = 9 · 64, the paper's example"),
        pytest.param("xavier", 2 / (576 + 576), 2 / (128 + 64), 2 / (64 + 50), id="xavier"),
        pytest.param("orthogonal", 2 / 576, 1 / 128, 1 / 64, id="orthogonal"),
    ],
)
def test_weights_have_the_variance_of_their_layer(scheme, convolution, transposed, head):
    torch.manual_seed(0)
    network = UNet(3, 50, depth=1, width=64, norm="none")
    initialise(network, scheme)
    layers = ((network.down[0][2], convolution), (network.rise[0], transposed), (network.head, head))
    for layer, variance in layers:
        count = layer.weight.numel()
        # A sample variance strays by √(2 / count) of itself; four of these.
        assert layer.weight.square().mean().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / count))
        assert not layer.bias.any()


def test_orthogonal_rows_are_orthonormal_but_for_the_gain():
    network = UNet(3, 5, depth=1, width=8, norm="none")
    initialise(network, "orthogonal")
    rows = network.down[0][2].weight.flatten(1)
    assert_close(rows @ rows.T, 2 * torch.eye(8), atol=1e-5, rtol=0)
    for tap in network.rise[0].weight.flatten(2).unbind(-1):  # (below, here): each makes one pixel of the doubled image
        assert_close(tap.T @ tap, torch.eye(8), atol=1e-5, rtol=0)
    head = network.head.weight.flatten(1)
    assert_close(head @ head.T, torch.eye(5), atol=1e-5, rtol=0)


def test_he_keeps_the_mean_square_through_a_residual_block_and_gaussian_doubles_it():
    """Its two summands bring 2 q each before the last ReLU, or q each; 0.4 is three times √(5 · 2 / 512)."""
    found = {}
    for scheme in ("he", "gaussian"):
        torch.manual_seed(0)
        block = Residual(64, 512, "none", "same")
        initialise(block, scheme)
        with torch.no_grad():
            found[scheme] = block(torch.randn(4, 64, 12, 12))[..., 2:-2, 2:-2].square().mean().item()
    assert found["he"] == pytest.approx(1, rel=0.4)
    assert found["gaussian"] == pytest.approx(2, rel=0.4)


def test_a_trained_network_starts_anew_normalisations_included():
    network = UNet(2, 3, depth=1, width=4)
    network.train()(5 + torch.randn(4, 2, 8, 8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    torch.manual_seed(3)
    initialise(network)
    torch.manual_seed(3)
    once = UNet(2, 3, depth=1, width=4)
    torch.manual_seed(3)
    initialise(once)
    assert all(torch.equal(value, once.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("make", [UNet, UNetPlusPlus])
def test_networks_are_made_as_he_says(make):
    torch.manual_seed(0)
    network = make(64, 2, depth=1, width=64)
    head = network.head if make is UNet else network.heads[-1]
    assert network.down[0][0].weight.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.02)
    assert head.weight.std().item() == pytest.approx(math.sqrt(1 / 64), rel=0.25)  # of 128: 4 / √(2 · 128)


def test_a_rule_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match="he, xavier, orthogonal, gaussian, not 'lecun'"):
        initialise(nn.Conv2d(1, 1, 1), "lecun")


def test_the_prior_of_two_classes_told_apart_by_one_channel_is_its_log_odds():
    network = UNet(2, 2, depth=1, width=2, sigmoid=True)
    set_prior(network, [800, 200])
    assert network.head.bias.item() == pytest.approx(math.log(0.2 / 0.8))
    nn.init.zeros_(network.head.weight)
    probs = network.eval()(torch.randn(1, 2, 4, 4)).softmax(dim=1)
    assert_close(probs, torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, 4, 4))


def test_every_head_is_told_the_prior():
    network = UNetPlusPlus(2, 3, depth=3, width=2)
    set_prior(network, [0.5, 0.25, 0.25])
    for head in network.heads:
        assert_close(head.bias.softmax(0), torch.tensor([0.5, 0.25, 0.25]))


def test_a_prior_of_one_class_too_many_is_refused_where_one_channel_tells_two_apart():
    with pytest.raises(ConfigError, match="2 class frequencies"):
        set_prior(UNet(1, 2, depth=1, width=2, sigmoid=True), [1.0])
