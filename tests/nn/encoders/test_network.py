import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional
from torch.testing import assert_close

from geounet.errors import ConfigError, ModelFileError
from geounet.nn.encoders import EncoderUNet, Share, parameter_groups
from geounet.nn.runtime import compile
from geounet.nn.segmenter import Segmenter
from geounet.nn.unet import UNet, set_prior
from tests.nn.encoders.making import BANDS, SMALL, lived_in, segmenter, small, timm_maps


@settings(max_examples=6, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), depth=st.integers(3, 5))
def test_every_pixel_gets_a_score_for_every_class_whatever_the_size(height, width, depth):
    network = EncoderUNet(4, 3, encoder_name=SMALL, encoder_depth=depth).eval()
    logits = network(torch.randn(2, 4, height, width))
    assert logits.shape == (2, 3, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("encoder_name", "divided"),
    [
        pytest.param("resnet18", [2, 4, 8, 16, 32], id="no map of the image's size"),
        pytest.param("vgg13", [1, 2, 4, 8, 16, 32], id="one of each size"),
        pytest.param("convnext_atto", [4, 8, 16, 32], id="none of half the size either"),
    ],
)
@pytest.mark.parametrize("upsample", ["transposed", "bilinear"])
def test_encoders_of_every_kind_carry_a_decoder(encoder_name, divided, upsample):
    network = EncoderUNet(5, 2, encoder_name=encoder_name, decoder_channels=[8] * 5, upsample=upsample).eval()
    assert network.encoder.feature_info.reduction() == divided
    assert network(torch.randn(1, 5, 40, 33)).shape == (1, 2, 40, 33)


def test_an_odd_image_is_padded_by_its_own_edge_and_cropped_back():
    network = lived_in(small())
    image = torch.randn(1, 4, 50, 37)
    padded = functional.pad(image, (0, 27, 0, 14), mode="replicate")
    assert_close(network(image), network(padded)[..., :50, :37], rtol=0, atol=0)


def test_every_map_of_the_encoder_reaches_the_scores():
    network = lived_in(small())
    maps = [image.detach().requires_grad_() for image in network.encoder(torch.randn(1, 4, 32, 32))]
    network.encoder.forward = lambda _: maps
    image = torch.randn(1, 4, 32, 32, requires_grad=True)
    network(image).square().sum().backward()
    assert all(bool(tensor.grad.any()) for tensor in (image, *maps)), "the image itself is laid beside at full size"


def test_the_encoder_sees_what_timms_own_sees(learnt, weights_file):
    network = small(3, encoder_weights=weights_file, bands=["red", "green", "blue"]).eval()
    image = torch.randn(1, 3, 64, 64)
    assert_close(network.encoder(image), timm_maps(learnt, image))


def test_other_bands_meet_the_weights_by_name(learnt, weights_file):
    network = small(4, encoder_weights=weights_file, bands=["B08", "B03", "B02", "B04"])
    kernels = learnt.conv_stem.weight
    expected = torch.stack([kernels[:, 0] / 2, kernels[:, 1], kernels[:, 2], kernels[:, 0] / 2], dim=1)
    assert_close(network.encoder.conv_stem.weight, expected)
    assert network.stem_shares == (
        Share("nir", "red", 0.5), Share("green", "green", 1.0), Share("blue", "blue", 1.0), Share("red", "red", 0.5),
    )  # fmt: skip
    assert network.origin["weights"] == "encoder.safetensors"


def test_a_grey_image_draws_the_answer_that_photographs_drew(learnt, weights_file):
    network = small(4, encoder_weights=weights_file, bands=BANDS).eval()
    grey = torch.randn(1, 1, 64, 64)
    assert_close(
        network.encoder(grey.expand(-1, 4, -1, -1)), timm_maps(learnt, grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
    )


def test_names_that_timm_spells_otherwise_alone_are_found(tmp_path):
    whole = timm.create_model("convnext_atto", num_classes=0)
    save_file(whole.state_dict(), tmp_path / "atto.safetensors")
    network = EncoderUNet(3, 2, encoder_name="convnext_atto", encoder_weights=tmp_path / "atto.safetensors")
    assert_close(network.encoder.stages_3.blocks[0].conv_dw.weight, whole.stages[3].blocks[0].conv_dw.weight)
    assert_close(network.encoder.stem_0.weight, whole.stem[0].weight)


def test_an_encoder_goes_on_from_a_model_of_geounet_with_other_bands(tmp_path):
    first = lived_in(small(bands=BANDS))
    path = segmenter(first).save(tmp_path / "model.safetensors")
    second = small(2, encoder_weights=str(path), bands=["nir", "red"])
    kernels = first.encoder.conv_stem.weight
    assert_close(second.encoder.conv_stem.weight, 2 * kernels[:, [3, 2]])
    assert_close(second.encoder.bn1.running_var, first.encoder.bn1.running_var)


def test_a_model_with_an_encoder_is_read_back_without_its_first_weights(tmp_path, weights_file):
    model = segmenter(lived_in(small(encoder_weights=weights_file, bands=BANDS, dropout=0.1)))
    path = model.save(tmp_path / "model.safetensors")
    again = Segmenter.load(path)
    image = torch.randn(1, 4, 40, 50) * 200 + 1000
    assert torch.equal(again(image), model(image))
    assert again.network.arguments == model.network.arguments
    assert again.network.stem_shares == model.network.stem_shares
    assert "encoder_weights" not in again.network.arguments
    assert again.hash == model.hash


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoder_weights": "imagenet"}, "a network in a file has its weights there"),
        ({"encoder_name": "hf-hub:timm/resnet18.a1_in1k"}, "no encoder is called 'hf-hub:timm/resnet18.a1_in1k'"),
        ({"encoder_name": "local-dir:here"}, "no encoder is called"),
        ({"encoder_name": 18}, "no encoder is called 18"),
        ({"bands": ["red"]}, "1 bands are named"),
        ({"origin": 7}, "cannot be made"),
    ],
)
def test_a_model_file_fetches_nothing_whatever_it_asks_for(tmp_path, change, reason):
    network = small(bands=BANDS)
    network.arguments |= change
    path = segmenter(network).save(tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=reason):
        Segmenter.load(path)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("encoder_name", ["resnet18", SMALL, "convnext_atto"])
def test_probabilities_are_those_of_plain_torch(backend, encoder_name):
    torch.manual_seed(0)
    model = segmenter(lived_in(small(encoder_name=encoder_name)))
    image = torch.randn(2, 4, 64, 64) * 200 + 1000
    with torch.no_grad():
        expected = model(image).softmax(dim=1)
    forward = compile(model, (64, 64), device="cpu", backend=backend, precision="fp32")
    assert forward.backend == backend
    assert_close(torch.as_tensor(forward(image.numpy())), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_small_map_is_learnt_by_heart(norm):
    torch.manual_seed(0)
    network = small(1, 2, norm=norm)
    stripes = (torch.arange(64) // 8 % 2).expand(64, 64)
    labels = torch.stack([stripes, stripes.T])
    image = labels[:, None].float() + 0.3 * torch.randn(2, 1, 64, 64)
    optimizer = torch.optim.Adam(parameter_groups(network, 1e-2, 0.0))
    for _ in range(25):
        optimizer.zero_grad()
        functional.cross_entropy(network(image), labels).backward()
        optimizer.step()
    assert (network(image).argmax(1) == labels).float().mean() > 0.98


def test_a_network_with_an_encoder_can_be_copied():
    network = lived_in(small())
    image = torch.randn(1, 4, 32, 32)
    assert torch.equal(copy.deepcopy(network)(image), network(image))


def test_two_classes_may_be_told_apart_by_one_channel():
    network = small(4, 2, sigmoid=True).eval()
    set_prior(network, [3.0, 1.0])
    logits = network(torch.randn(1, 4, 32, 32))
    assert logits.shape == (1, 2, 32, 32)
    assert not logits[:, 0].any()
    assert network.head.bias.tolist() == pytest.approx([-1.0986123])  # ln(1/3)


def test_a_frozen_encoder_keeps_its_weights_but_for_bands_it_does_not_know(weights_file):
    network = small(encoder_weights=weights_file, bands=BANDS)
    network.freeze_encoder()
    before = copy.deepcopy(network)
    optimizer = torch.optim.SGD(parameter_groups(network, 0.1, 0.0), lr=0.1)
    network.train()(torch.randn(2, 4, 64, 64)).square().mean().backward()
    optimizer.step()
    changed = {name for name, old in before.named_parameters() if not torch.equal(old, network.get_parameter(name))}
    assert {name for name in changed if name.startswith("encoder.")} == {"encoder.conv_stem.weight"}
    assert "head.weight" in changed
    assert not torch.equal(before.encoder.bn1.running_mean, network.encoder.bn1.running_mean)
    network.unfreeze_encoder()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_an_encoder_of_the_same_bands_is_frozen_as_a_whole(weights_file):
    network = small(3, encoder_weights=weights_file, bands=["red", "green", "blue"])
    network.freeze_encoder()
    assert not any(parameter.requires_grad for parameter in network.encoder.parameters())


def test_what_is_pretrained_learns_slower_and_vectors_do_not_decay(weights_file):
    model = segmenter(small(encoder_weights=weights_file, bands=BANDS))
    groups = parameter_groups(model, 1e-3, 1e-2, encoder_lr_factor=0.1)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.network.named_parameters():
        rate = 1e-4 if name.startswith("encoder.") else 1e-3
        assert rates[id(parameter)] == (pytest.approx(rate), 1e-2 if parameter.ndim > 1 else 0.0)


@pytest.mark.parametrize("network", [UNet(2, 2, depth=1, width=2), small()], ids=["no encoder", "random encoder"])
def test_what_is_new_learns_at_one_rate(network):
    assert {group["lr"] for group in parameter_groups(network, 1e-3, 0.0, encoder_lr_factor=0.1)} == {1e-3}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bands": ["red", "nir"]}, r"2 bands are named \(red, nir\), but the network has 4 channels"),
        ({"bands": ["B02", "blue", "red", "nir"]}, "each band is named once, but blue is given more than once"),
        ({"bands": "rgbn"}, "bands is a list of names, not 'rgbn'"),
        ({"encoder_name": "resnet81"}, "no encoder is called 'resnet81'; near are resnet"),
        ({"encoder_name": "vit_tiny_patch16_224"}, "halvings up to 32 are needed"),
        ({"encoder_name": "swin_tiny_patch4_window7_224"}, "bound to one size of images"),
        ({"encoder_name": "resnet18.other_in1k"}, "resnet18.other_in1k cannot be the encoder"),
        ({"encoder_depth": 2, "decoder_channels": None}, "encoder_depth is a whole number from 3 to 5, not 2"),
        ({"decoder_channels": [8, 8]}, "decoder_channels has 2 numbers; a network of 5 halvings needs 5"),
        ({"decoder_channels": [8, 8, 8, 8, 0]}, "whole numbers from 1 to 16384, not 0"),
        ({"decoder_channels": 8}, "decoder_channels is a list of numbers, not 8"),
        ({"norm": "layer"}, "norm is one of batch, group, none"),
        ({"encoder_weights": "image-net"}, "encoder_weights is imagenet, one of torchgeo's"),
    ],
)
def test_what_cannot_be_made_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        small(**options)


def test_an_image_of_other_channels_is_refused():
    with pytest.raises(ConfigError, match="the network reads 4 channels; the image has 3"):
        small()(torch.zeros(1, 3, 32, 32))


def test_a_factor_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"from 0 to 1, not 1\.5"):
        parameter_groups(small(), 1e-3, 0.0, encoder_lr_factor=1.5)
