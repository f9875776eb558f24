"""A map that is made from all sides does not know which way up the ground was."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from geounet.errors import ConfigError
from geounet.inference import predict
from geounet.nn.augment import FlipsAndTurns
from geounet.nn.sides import SIDES, seen_back, seen_from
from geounet.nn.tta import mean_over_sides
from tests.making import BANDS, pixel_model, reflectance, unet_model, write_raster

ROUNDING = 2e-6
EXACT = {"precision": "fp32", "device": "cpu"}
squares = {
    "as it is": lambda a: a,
    "turned to the left": lambda a: np.rot90(a, 1, (-2, -1)),
    "upside down": lambda a: np.rot90(a, 2, (-2, -1)),
    "turned to the right": lambda a: np.rot90(a, 3, (-2, -1)),
    "north and south changed": lambda a: a[..., ::-1, :],
    "east and west changed": lambda a: a[..., ::-1],
    "rows for columns": lambda a: np.swapaxes(a, -2, -1),
    "over the other diagonal": lambda a: np.rot90(np.swapaxes(a, -2, -1), 2, (-2, -1)),
}


@pytest.mark.parametrize("library", [np.asarray, torch.asarray])
def test_the_eight_sides_are_those_that_numpy_turns_and_flips_a_square_to(library):
    square = np.arange(2 * 9).reshape(2, 3, 3)
    found = {np.asarray(seen_from(library(square), side)).tobytes() for side in SIDES["d4"]}
    assert found == {np.ascontiguousarray(turn(square)).tobytes() for turn in squares.values()}
    assert len(found) == 8


@given(st.integers(0, 7), st.integers(1, 5), st.integers(1, 5))
def test_each_side_is_taken_back(side, height, width):
    pixels = np.arange(height * width).reshape(1, height, width)
    there = seen_from(pixels, side)
    assert there.shape == ((1, width, height) if side & 4 else (1, height, width))
    assert_array_equal(seen_back(there, side), pixels)


def test_augmentation_shows_the_same_sides_as_the_mean_is_taken_over():
    square = torch.arange(9.0).reshape(1, 1, 3, 3).expand(200, 1, 3, 3)
    seen, _ = FlipsAndTurns()(square, square[:, 0].long(), torch.Generator().manual_seed(0))
    assert {one.numpy().tobytes() for one in seen} == {
        np.ascontiguousarray(seen_from(square[0].numpy(), side)).tobytes() for side in SIDES["d4"]
    }


def test_the_mean_is_the_one_worked_out_by_hand():
    image = np.array([[[[1.0, 3.0]]]])
    answers = []

    def first_column(images):  # says the value of the first column of every pixel
        answers.append(images.shape)
        return np.broadcast_to(images[..., :1], images.shape).copy()

    assert mean_over_sides(first_column, image, "none").tolist() == [[[[1.0, 1.0]]]]
    # the left column is first from two of the four sides
    assert mean_over_sides(first_column, image, "flips").tolist() == [[[[2.0, 2.0]]]]
    # from the other four, each pixel is its row's first
    assert mean_over_sides(first_column, image, "d4").tolist() == [[[[1.5, 2.5]]]]
    assert answers == [(1, 1, 1, 2)] * (1 + 4 + 4) + [(1, 1, 2, 1)] * 4


def test_answers_may_be_tensors_as_those_of_a_gpu_are():
    images = np.random.default_rng(0).random((2, 3, 4, 6), np.float32)
    network = torch.nn.Conv2d(3, 2, 3, padding=1)

    def answer(images):
        with torch.no_grad():
            return network(torch.from_numpy(np.ascontiguousarray(images)))

    found = mean_over_sides(answer, images, "d4")
    expected = mean_over_sides(lambda images: answer(images).numpy(), images, "d4")
    assert isinstance(found, torch.Tensor)
    assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert_allclose(mean_over_sides(answer, images[..., ::-1], "d4"), expected[..., ::-1], rtol=0, atol=1e-6)


def probabilities(path, model, **options):
    strips = list(predict(path, model, **EXACT | options).strips(probabilities=True))
    return np.concatenate([strip.probabilities for strip in strips], axis=1)


@pytest.fixture(scope="module", params=[(24, 24), (16, 28)], ids=["square", "oblong"])
def scene(request):
    """Pixels whose sides are multiples of the stride."""
    return reflectance(request.param)


@pytest.fixture(scope="module")
def unet():
    return unet_model(seed=4)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_the_map_of_a_turned_scene_is_the_turned_map(tmp_path, scene, unet, backend):
    options = {"backend": backend, "tta": "d4"}
    upright = probabilities(write_raster(tmp_path / "scene.tif", scene, bands=BANDS), unet, **options)
    for name in ("turned to the left", "east and west changed"):  # which make all eight, one after the other
        turn = squares[name]
        turned = write_raster(tmp_path / f"{name}.tif", turn(scene), bands=BANDS)
        found = probabilities(turned, unet, **options)
        assert_allclose(found, turn(upright), rtol=0, atol=ROUNDING, err_msg=name)


def test_without_it_the_network_does_know(tmp_path, scene, unet):
    whole = write_raster(tmp_path / "scene.tif", scene, bands=BANDS)
    turned = write_raster(tmp_path / "turned.tif", scene[..., ::-1], bands=BANDS)
    difference = probabilities(turned, unet) - probabilities(whole, unet)[..., ::-1]
    assert abs(difference).max() > 1000 * ROUNDING


@pytest.mark.parametrize("turn", ["upside down", "north and south changed", "east and west changed"])
def test_flips_are_enough_for_what_is_flipped(tmp_path, scene, unet, turn):
    whole = write_raster(tmp_path / "scene.tif", scene, bands=BANDS)
    turned = write_raster(tmp_path / "turned.tif", squares[turn](scene), bands=BANDS)
    expected = squares[turn](probabilities(whole, unet, tta="flips"))
    assert_allclose(probabilities(turned, unet, tta="flips"), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("tta", ["flips", "d4"])
@pytest.mark.parametrize("tiling", [{"chip_size": 64}, {"chip_size": 12, "overlap": 5}])
def test_a_network_that_sees_one_pixel_says_from_all_sides_what_it_says_from_one(tmp_path, scene, tta, tiling):
    scene = scene.copy()
    scene[:, :9, 5:20] = -9999
    path = write_raster(tmp_path / "scene.tif", scene, bands=BANDS, nodata=-9999)
    model = pixel_model()
    once, averaged = (probabilities(path, model, tta=one, **tiling) for one in ("none", tta))
    assert_allclose(averaged, once, rtol=0, atol=ROUNDING)
    assert (averaged[:, :9, 5:20] == 0).all()


def test_the_backends_agree(tmp_path, scene, unet):
    path = write_raster(tmp_path / "scene.tif", scene, bands=BANDS)
    maps = [probabilities(path, unet, tta="d4", chip_size=16, backend=backend) for backend in ("torch", "openvino")]
    assert_allclose(*maps, rtol=0, atol=1e-5)


def test_the_record_of_a_map_says_from_which_sides_it_was_made(tmp_path, unet):
    path = write_raster(tmp_path / "scene.tif", reflectance((16, 16)), bands=BANDS)
    mask = predict(path, unet, tta="flips").to_geotiff(tmp_path / "mask.tif")
    assert '"tta": "flips"' in mask.path.with_name("mask.run.json").read_text()


def test_an_unknown_name_is_refused(tmp_path, unet):
    path = write_raster(tmp_path / "scene.tif", reflectance((16, 16)), bands=BANDS)
    with pytest.raises(ConfigError, match="tta is one of none, flips, d4, not 'dihedral'"):
        predict(path, unet, tta="dihedral")
