"""Unpadded convolutions: every pixel gets a score, and none depends on where the image was cut."""

from itertools import count, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from geounet.core.legend import Legend
from geounet.errors import ConfigError
from geounet.inference import predict
from geounet.nn.extent import Extent, mirror
from geounet.nn.runtime import compile, openvino, to_openvino
from geounet.nn.segmenter import ModelInfo, Segmenter
from geounet.nn.unet import UNet
from tests.making import BANDS, band_infos, reflectance, write_raster

UPSAMPLES = ["transposed", "bilinear"]


def unpadded(depth=2, upsample="transposed", bands=2, classes=3, seed=0, **options):
    """Small network in double precision whose batch statistics differ from those of a new one."""
    torch.manual_seed(seed)
    network = UNet(bands, classes, depth=depth, width=3, upsample=upsample, convolutions="valid", **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval().double()


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_papers_network_gives_388_pixels_for_572():
    network = UNet(1, 2, depth=4, width=1, convolutions="valid").eval()
    assert network.border == (572 - 388) // 2
    with torch.no_grad():
        assert network.inside(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)


@pytest.mark.parametrize("upsample", UPSAMPLES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_border_is_what_the_layers_take_off(depth, upsample):
    network = unpadded(depth, upsample)
    least, more = islice(filter(network.extent.fits, count(1)), 2)
    taken = 2 * network.border
    assert more - least == network.stride
    assert least - taken <= network.stride
    assert network.inside(noise(1, 2, least, more)).shape[2:] == (least - taken, more - taken)


def test_borders_are_those_of_the_docstring():
    assert [Extent(depth, False, True).border for depth in (2, 3, 4, 5)] == [20, 44, 92, 188]
    assert Extent(4, False).border == 0


def test_an_image_that_cannot_be_halved_so_often_is_refused():
    with pytest.raises(ConfigError, match=r"571 × 572 pixels cannot be halved 4 times .* sides are 188, 204, 220, …"):
        UNet(1, 2, depth=4, width=1, convolutions="valid").inside(torch.zeros(1, 1, 571, 572))
    with pytest.raises(ConfigError, match=r"9 × 8 pixels .* sides are 4, 8, 12, …"):
        UNet(1, 2, depth=2, width=1).inside(torch.zeros(1, 1, 9, 8))


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), frame=st.integers(0, 30), stride=st.sampled_from([1, 2, 4]))
def test_an_image_is_mirrored_as_numpy_does(height, width, frame, stride):
    image = noise(1, 2, height, width)
    spare = [(0, 0), (0, 0), (frame, frame + -height % stride), (frame, frame + -width % stride)]
    assert_array_equal(mirror(image, frame, stride).numpy(), np.pad(image.numpy(), spare, mode="reflect"))


@pytest.mark.parametrize("upsample", UPSAMPLES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scores_are_those_of_the_mirrored_image(depth, upsample):
    """What the paper does by hand: mirror, then cut nothing but what the convolutions cut."""
    network = unpadded(depth, upsample)
    image = noise(1, 2, 4 * network.stride, 3 * network.stride)
    frame, rest = network.extent.frame, network.extent.frame - network.border
    by_hand = network.inside(
        torch.from_numpy(np.pad(image, [(0, 0), (0, 0), (frame, frame), (frame, frame)], "reflect"))
    )
    rows, cols = (slice(rest, rest + side) for side in image.shape[2:])
    assert_close(network(image), by_hand[..., rows, cols], rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    depth=st.integers(1, 2),
    upsample=st.sampled_from(UPSAMPLES),
    residual=st.booleans(),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
)
def test_a_tile_read_with_its_margin_has_the_scores_of_the_canvas(data, depth, upsample, residual, height, width):
    """Wherever it starts among multiples of the stride, whatever its size, at the canvas' edges as well."""
    network = unpadded(depth, upsample, residual=residual)
    canvas = noise(1, 2, height, width)
    around = network.margin + -network.margin % network.stride
    kept, read = [], []
    for length in (height, width):
        start = network.stride * data.draw(st.integers(0, (length - 1) // network.stride))
        stop = data.draw(st.integers(start + 1, length))
        before = max(0, start - around)
        read.append(slice(before, min(length, stop + around)))
        kept.append((slice(start, stop), slice(start - before, stop - before)))
    tile = network(canvas[..., read[0], read[1]])[..., kept[0][1], kept[1][1]]
    assert_close(tile, network(canvas)[..., kept[0][0], kept[1][0]], rtol=0, atol=1e-11)


def test_tiles_laid_side_by_side_are_the_canvas():
    """The overlap-tile strategy of the paper: inputs overlap by twice the border, outputs touch."""
    network = unpadded(2)
    canvas = noise(1, 2, 44 + 40, 60 + 40)
    rows = []
    for top in range(0, 44, 12):
        tiles = [network.inside(canvas[..., top : top + 48 + 4, left : left + 60]) for left in range(0, 60, 20)]
        rows.append(torch.cat([tile[..., :12, :] for tile in tiles], dim=-1))
    assert_close(torch.cat(rows, dim=-2)[..., :44, :], network.inside(canvas), rtol=0, atol=1e-12)


@pytest.mark.parametrize("upsample", UPSAMPLES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_away_from_the_edges_padded_convolutions_of_equal_weights_agree(depth, upsample):
    valid = unpadded(depth, upsample)
    same = UNet(2, 3, depth=depth, width=3, upsample=upsample).eval().double()
    same.load_state_dict(valid.state_dict())
    margin = valid.margin
    assert (same.margin, same.receptive_field) == (margin, valid.receptive_field)
    image = noise(1, 2, 2 * margin + 5, 2 * margin + 9)
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    assert_close(valid(image)[inner], same(image)[inner], rtol=0, atol=1e-11)
    assert not torch.allclose(valid(image), same(image))


def test_a_mirrored_image_has_mirrored_scores_if_the_weights_are():
    """Both sides are extended alike, so left is not told from right."""
    network = unpadded(2, upsample="bilinear")  # a learnt doubling would have to be mirrored within pairs
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
    image = noise(1, 2, 12, 16)
    assert_close(network(image.flip(-1)), network(image).flip(-1), rtol=0, atol=1e-11)


def model_of(depth, upsample, bands=BANDS, **options):
    network = unpadded(depth, upsample, len(bands), 2, **options).float()
    return Segmenter(network, band_infos(bands), ModelInfo(Legend.of(["land", "water"]))).eval()


@pytest.mark.parametrize("options", [{}, {"residual": True, "sigmoid": True}, {"norm": "none"}], ids=str)
@pytest.mark.parametrize("upsample", UPSAMPLES)
def test_a_model_of_it_is_saved_loaded_and_run_by_torch_and_openvino(tmp_path, upsample, options):
    made = model_of(2, upsample, ["red", "nir"], **options)
    model = Segmenter.load(made.save(tmp_path / "model.safetensors"))
    assert model.hash == made.hash
    assert model.network.border == made.network.border > 0
    batch = (1000 + 500 * noise(2, 2, 8, 40)).float()  # narrower than its own frame, wider than the traced image
    with torch.no_grad():
        expected = made(batch).softmax(dim=1).numpy()
    for backend in ("torch", "openvino"):
        forward = compile(model, (8, 40), device="cpu", backend=backend, precision="fp32", threads=1)
        assert forward.backend == backend
        assert_allclose(forward(batch.numpy()), expected, atol=2e-5)
    precise = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    any_size = openvino().Core().compile_model(to_openvino(model), "CPU", precise)
    for part in (batch, batch[:1, :, :, :36]):
        with torch.no_grad():
            assert_allclose(any_size(part.numpy())[0], made(part).softmax(dim=1).numpy(), atol=2e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_a_trace_mirrors_images_of_any_size():
    network = unpadded(2)
    traced = torch.jit.trace(network, noise(1, 2, 8, 8), check_trace=False)
    for shape in ((4, 4), (24, 40), (13, 1)):
        image = noise(2, 2, *shape)
        assert_close(traced(image), network(image), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_scene_in_chips_has_the_map_of_the_whole(tmp_path, backend):
    """Pixels that every chip over them sees with its margin: those of the whole, to the precision of the sums."""
    model = model_of(1, "transposed")
    path = write_raster(tmp_path / "scene.tif", reflectance((96, 96)), bands=BANDS)
    options = {"backend": backend, "precision": "fp32", "device": "cpu"}
    whole = predict(path, model, chip_size=96, overlap=0, **options)
    (strip,) = whole.strips(probabilities=True)
    with torch.no_grad():
        image = torch.from_numpy(reflectance((96, 96)).astype(np.float32))[None]
        expected = model(image).softmax(dim=1)[0].numpy()
    assert_allclose(strip.probabilities, expected, atol=2e-5)
    tiled = predict(path, model, chip_size=56, overlap=16, **options)  # two a side, at 0 and 40
    assert (tiled.tiling.rows.starts[0], tiled.tiling.rows.starts[-1]) == (0, 40)
    found = np.concatenate([s.probabilities for s in tiled.strips(probabilities=True)], axis=1)
    alone = np.r_[0:40, 56:96]  # in one chip only, and more than the margin of 9 pixels from where it ends
    assert model.network.margin == 9
    assert_allclose(found[:, alone][:, :, alone], expected[:, alone][:, :, alone], atol=2e-5)
