"""Tiling leaves no trace, memory of the doors agree, nothing is counted twice, nodata never leaks."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.windows import Window

import geounet
from geounet.core.legend import Legend
from geounet.core.metrics import Confusion
from geounet.errors import ConfigError, GridError, LegendError, OutputError, OutputExistsError, SceneError
from geounet.evaluation import compare, evaluate
from geounet.inference import choose_model, predict
from geounet.inference.prediction import Strip, Tally, largest
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from tests.making import BANDS, pixel_model, reflectance, unet_model, write_raster

EXACT = {"backend": "openvino", "precision": "fp32"}
quick = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def scene_path(tmp_path_factory):
    """150 × 170 pixels with a nodata wedge and a hole."""
    pixels = reflectance((150, 170))
    rows, cols = np.mgrid[:150, :170]
    pixels[:, rows + cols < 40] = -9999
    pixels[2, 100:110, 50:70] = -9999  # one band alone: not valid either
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", pixels, bands=BANDS, nodata=-9999)


@pytest.fixture(scope="module")
def valid(scene_path):
    with rasterio.open(scene_path) as dataset:
        return (dataset.read() != -9999).all(axis=0)


@st.composite
def tilings(draw):
    size = draw(st.integers(8, 200))
    return {"chip_size": size, "overlap": draw(st.integers(0, size - 4))}  # of stride 1 there are too many to wait for


@quick
@given(tiling=tilings(), backend=st.sampled_from(["torch", "openvino"]))
def test_a_network_that_sees_one_pixel_gives_the_same_map_tiled_or_whole(scene_path, tiling, backend):
    model = pixel_model()
    whole = predict(scene_path, model, chip_size=200, overlap=0, backend=backend, precision="fp32").to_numpy()
    tiled = predict(scene_path, model, **tiling, backend=backend, precision="fp32").to_numpy()
    assert_array_equal(tiled, whole)
    assert set(np.unique(whole)) == {0, 1, 255}


@quick
@given(tiling=tilings())
def test_a_constant_comes_back_constant(tmp_path_factory, tiling):
    path = tmp_path_factory.mktemp("flat") / "flat.tif"
    write_raster(path, np.full((6, 61, 83), 700, np.int16), bands=BANDS)
    prediction = predict(path, pixel_model(seed=3), **tiling)
    ids, probabilities = zip(*((s.ids, s.probabilities) for s in prediction.strips(probabilities=True)), strict=True)
    assert len(np.unique(np.concatenate(ids))) == 1
    flat = np.concatenate(probabilities, axis=1)
    rows, cols = prediction.tiling.rows, prediction.tiling.cols
    over_a_pixel = math.ceil(rows.size / rows.stride) * math.ceil(cols.size / cols.stride)
    assert np.ptp(flat, axis=(1, 2)).max() <= over_a_pixel * np.finfo(np.float32).eps  # a rounding for each that adds


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("options", [{"batch_size": 3}, {"batch_size": 16}, {"workers": 1}, {"workers": 5}])
def test_batch_size_and_workers_change_nothing(scene_path, backend, options):
    model = unet_model()
    settings_ = {"chip_size": 48, "overlap": 16, "backend": backend}
    assert_array_equal(
        predict(scene_path, model, **settings_, **options).to_numpy(),
        predict(scene_path, model, **settings_).to_numpy(),
    )


@quick
@given(data=st.data())
def test_any_block_is_cut_from_the_whole_map(scene_path, data):
    top, left = data.draw(st.integers(0, 149)), data.draw(st.integers(0, 169))
    height, width = data.draw(st.integers(1, 150 - top)), data.draw(st.integers(1, 170 - left))
    prediction = predict(scene_path, unet_model(), chip_size=48, overlap=16, **EXACT)
    whole = prediction.block(prediction.grid.window)
    assert_array_equal(
        prediction.block(Window(left, top, width, height)), whole[top : top + height, left : left + width]
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("texture", ["noise", "fields"])
def test_no_seam_shows_at_the_lines_of_the_tiling(tmp_path, texture, seed):
    noise = np.random.default_rng(5).normal(1000, 300, (6, 320, 320)).astype(np.int16)
    pixels = noise if texture == "noise" else reflectance((320, 320), seed=5)
    path = write_raster(tmp_path / "scene.tif", pixels, bands=BANDS)

    def probability(**tiling):
        prediction = predict(path, unet_model(depth=3, seed=seed), **tiling, **EXACT)
        strips = prediction.strips(probabilities=True)
        return prediction.tiling, np.concatenate([strip.probabilities[1] for strip in strips])

    tiling, tiled = probability(chip_size=128, overlap=48)
    _, whole = probability(chip_size=320, overlap=0)
    for axis, layout in enumerate((tiling.rows, tiling.cols)):
        lines = np.unique([*layout.starts[1:] - 1, *layout.stops[:-1] - 1])

        def excess(values, axis=axis, lines=lines):
            step = np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)
            return step[lines].mean() / np.delete(step, lines).mean()

        # lines fall on multiples of the stride, where a network's own steps differ: the untiled map is the measure
        assert excess(tiled) <= 1.05 * excess(whole)


def test_invalid_pixels_are_nodata_in_the_mask_pixel_for_pixel(scene_path, valid, tmp_path):
    mask = predict(scene_path, unet_model(), chip_size=48, overlap=16).to_geotiff(tmp_path / "mask.tif")
    with rasterio.open(mask.path) as dataset:
        assert dataset.nodata == 255
        assert_array_equal(dataset.read(1) != 255, valid)


def test_what_lies_under_nodata_changes_nothing(scene_path, valid, tmp_path):
    with rasterio.open(scene_path) as dataset:
        pixels = dataset.read()
    other = np.where(valid, pixels, np.int16(-32768))
    path = write_raster(tmp_path / "other.tif", other, bands=BANDS, nodata=-32768)
    model = unet_model()
    assert_array_equal(predict(path, model).to_numpy(), predict(scene_path, model).to_numpy())


def test_class_pixels_and_nodata_add_up_and_polygons_cover_the_same_ground(scene_path, valid, tmp_path):
    mask = predict(scene_path, unet_model(), chip_size=48, overlap=16).to_geotiff(tmp_path / "mask.tif")
    assert sum(mask.pixels.values()) == valid.size
    assert mask.pixels["nodata"] == (~valid).sum()
    assert mask.areas_m2 == {name: mask.pixels[name] * 900.0 for name in ("land", "water")}
    areas = geounet.polygonize(mask).frame.groupby("name")["area_m2"].sum()
    for name, area in mask.areas_m2.items():
        assert areas[name] == pytest.approx(area, rel=1e-9)


def test_class_areas_in_degrees_are_true_square_metres(tmp_path):
    crs, transform = rasterio.CRS.from_epsg(4326), Affine(0.01, 0, 10, 0, -0.01, 60)
    path = write_raster(tmp_path / "deg.tif", reflectance((100, 100)), bands=BANDS, crs=crs, transform=transform)
    mask = predict(path, unet_model()).to_geotiff(tmp_path / "mask.tif")
    from pyproj import Geod

    ring = ([10, 11, 11, 10], [59, 59, 60, 60])
    dense = [np.concatenate([np.linspace(a[i], a[(i + 1) % 4], 200, endpoint=False) for i in range(4)]) for a in ring]
    truth, _ = Geod(ellps="WGS84").polygon_area_perimeter(*dense)
    assert sum(mask.areas_m2.values()) == pytest.approx(truth, rel=1e-4)


def test_all_doors_give_the_same_bytes(scene_path, tmp_path):
    model = unet_model()
    path = model.save(tmp_path / "model.safetensors")
    options = {"chip_size": 48, "overlap": 16}
    from click.testing import CliRunner

    from geounet.cli import main

    command = ["predict", str(scene_path), "-m", str(path), "-o", str(tmp_path / "cli.tif"), "--chip-size", "48"]
    result = CliRunner().invoke(main, [*command, "--overlap", "16"])
    assert result.exit_code == 0, result.output
    mask = geounet.predict(geounet.open_scene(scene_path), geounet.load(path), **options).to_geotiff(
        tmp_path / "python.tif"
    )
    assert mask.path.read_bytes() == (tmp_path / "cli.tif").read_bytes()
    with rasterio.open(mask.path) as dataset:
        assert_array_equal(dataset.read(1), predict(scene_path, model, **options).to_numpy())
    blocks = predict(scene_path, model, **options)
    halves = [blocks.block(Window(left, 0, 85, 150)) for left in (0, 85)]
    assert_array_equal(model.legend.decode(np.hstack(halves)), predict(scene_path, model, **options).to_numpy())


def test_probabilities_sum_to_one_and_their_largest_is_the_mask(scene_path, valid, tmp_path):
    model = unet_model(classes=("a", "b", "c"))
    prediction = predict(scene_path, model, chip_size=48, overlap=16)
    prediction.to_geotiff(tmp_path / "mask.tif", probabilities=tmp_path / "probabilities.tif")
    with rasterio.open(tmp_path / "probabilities.tif") as dataset, rasterio.open(tmp_path / "mask.tif") as mask:
        steps, ids = dataset.read(), mask.read(1)
        assert dataset.descriptions == ("a", "b", "c")
        assert dataset.scales == pytest.approx((1 / 254,) * 3)
    assert_array_equal((steps != 255).all(axis=0), valid)
    assert np.abs(steps[:, valid].astype(int).sum(axis=0) - 254).max() <= 2
    largest_of = steps[:, valid].max(axis=0)
    assert_array_equal(np.take_along_axis(steps[:, valid], ids[valid][None].astype(int), 0)[0], largest_of)


def test_the_run_is_written_down_beside_the_mask(scene_path, tmp_path):
    model = unet_model()
    predict(scene_path, model, chip_size=64, overlap=16, force=True).to_geotiff(tmp_path / "map.tif")
    run = json.loads((tmp_path / "map.run.json").read_text())
    assert run["model"]["hash"] == model.hash
    assert [hash_[:7] for hash_ in run["input"]["hashes"]] == ["sha256:"]
    assert run["options"]["force"] is True
    assert run["pixels"]["nodata"] + run["pixels"]["land"] + run["pixels"]["water"] == 150 * 170
    assert {"read", "network", "write", "whole"} <= run["seconds"].keys()


def test_another_scene_takes_the_network_as_it_was_compiled(scene_path, tmp_path):
    other = write_raster(tmp_path / "other.tif", reflectance((150, 170), seed=9), bands=BANDS)
    small = write_raster(tmp_path / "small.tif", reflectance((20, 30), seed=9), bands=BANDS)
    model = unet_model()
    first = predict(scene_path, model, chip_size=64, overlap=16)
    assert first.over(other).forward is first.forward
    assert first.over(small).forward is not first.forward
    for path in (other, small):
        assert_array_equal(first.over(path).to_numpy(), predict(path, model, chip_size=64, overlap=16).to_numpy())


def test_a_small_chip_overlaps_by_a_quarter_and_an_axis_of_one_window_does_not_lessen_the_other(tmp_path):
    assert (
        len(
            predict(
                write_raster(tmp_path / "a.tif", reflectance((256, 256)), bands=BANDS), unet_model(), chip_size=64
            ).tiling
        )
        == 25
    )
    flat = predict(write_raster(tmp_path / "b.tif", reflectance((20, 600)), bands=BANDS), unet_model(), chip_size=256)
    assert flat.tiling.cols.size - flat.tiling.cols.stride == 64
    assert len(flat.tiling.rows.starts) == 1


@pytest.mark.parametrize(
    "options", [{"chip_size": 64, "overlap": 64}, {"overlap": -1}, {"chip_size": 0}, {"workers": 0}]
)
def test_windows_that_cannot_be_laid_are_refused(scene_path, options):
    with pytest.raises(ConfigError, match=r"is a number of pixels|is a number from 1"):
        predict(scene_path, unet_model(), **options)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_value_that_overflows_the_network_is_refused_with_its_place(tmp_path, backend):
    pixels = reflectance((64, 64)).astype(np.float32)
    pixels[1, 40, 50] = -3.4e38
    path = write_raster(tmp_path / "huge.tif", pixels, bands=BANDS)
    model = unet_model(mean=0.1, std=0.05)  # of reflectance from 0 to 1
    prediction = predict(path, model, backend=backend, precision="fp32")
    with pytest.raises(SceneError, match=r"huge\.tif holds values from -3\.4e\+38 .* rows 0 to 63.* --nodata"):
        prediction.to_geotiff(tmp_path / "mask.tif")
    assert not (tmp_path / "mask.tif").exists()
    mended = predict(open_scene(path, nodata=-3.4e38), model, backend=backend, precision="fp32")
    assert (mended.to_numpy() == 255).sum() == 1


def test_what_was_forced_is_written_down(scene_path, tmp_path):
    model = unet_model(pixel_size=0.3)
    predict(scene_path, model, force=True).to_geotiff(tmp_path / "map.tif")
    notes = json.loads((tmp_path / "map.run.json").read_text())["notes"]
    assert any(note.startswith("forced: ") and "pixels of 30 m" in note for note in notes)


@pytest.mark.parametrize("stamp", ["30/06/2021", "2020:01:01  1:02:03", " "])
def test_a_date_spelt_in_another_way_does_not_stop_a_map(tmp_path, stamp):
    path = write_raster(tmp_path / "dated.tif", reflectance((20, 20)), bands=BANDS)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_DATETIME=stamp)
    mask = predict(path, unet_model()).to_geotiff(tmp_path / "mask.tif")
    with rasterio.open(mask.path) as dataset:
        assert re.fullmatch(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d", dataset.tags()["TIFFTAG_DATETIME"])


def test_a_scene_is_never_replaced_by_its_own_map(scene_path, tmp_path):
    content = scene_path.read_bytes()
    with pytest.raises(OutputError, match="is the scene itself"):
        predict(scene_path, unet_model()).to_geotiff(scene_path, overwrite=True)
    with pytest.raises(OutputError, match="named for two outputs"):
        predict(scene_path, unet_model()).to_geotiff(tmp_path / "m.tif", probabilities=tmp_path / "m.tif")
    assert scene_path.read_bytes() == content
    assert list(tmp_path.iterdir()) == []


def test_labels_of_another_legend_or_grid_are_refused(scene_path, tmp_path):
    scene = open_scene(scene_path)
    path = write_raster(tmp_path / "truth.tif", np.zeros((150, 170), np.uint8))
    model = unet_model(classes=("land", "water"))
    turned = open_labels(path, scene.grid, Legend.of({1: "water", 0: "land"}))
    with pytest.raises(LegendError, match=r"\(1, 0\); the model's are \(0, 1\)"):
        evaluate(model, [Pair(scene, turned)])
    elsewhere = replace(scene.grid, transform=scene.grid.transform @ Affine.translation(5, 0))
    with pytest.raises(GridError, match="does not lie on the grid"):
        Pair(scene, open_labels(path, elsewhere, model.legend))


def test_an_existing_mask_is_refused_before_anything_is_computed(scene_path, tmp_path):
    (tmp_path / "mask.tif").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        predict(scene_path, unet_model()).to_geotiff(tmp_path / "mask.tif")
    assert (tmp_path / "mask.tif").read_text() == "mine"


def test_a_failing_read_leaves_nothing_behind(scene_path, tmp_path):
    broken = tmp_path / "broken.tif"
    content = scene_path.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(SceneError, match=r"broken\.tif"):
        predict(broken, unet_model(), chip_size=48, overlap=16, force=True).to_geotiff(tmp_path / "mask.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.tif"]


def test_evaluation_by_window_is_evaluation_of_the_mosaic(scene_path, valid, tmp_path):
    truth = np.random.default_rng(1).integers(0, 2, (150, 170)).astype(np.uint8)
    truth[:5] = 255
    path = write_raster(tmp_path / "truth.tif", truth, nodata=255)
    model = unet_model()
    scene = open_scene(scene_path)
    labels = open_labels(path, scene.grid, model.legend)
    options = {"chip_size": 48, "overlap": 40}
    windowed = evaluate(model, [Pair(scene, labels)], **options).confusion
    mosaic = predict(scene, model, **options).to_numpy()
    assert_array_equal(windowed.counts, Confusion.of(truth, mosaic, 2).counts)
    assert windowed.counts.sum() == (valid & (truth != 255)).sum()
    assert windowed.ignored == truth.size - windowed.counts.sum()
    again = compare(predict(scene, model, **options), labels)
    assert_array_equal(again.counts, windowed.counts)


@pytest.mark.parametrize("shape", [(1, 1), (1, 349), (31, 257), (2475, 3), (129, 128)])
def test_every_pixel_of_any_size_is_mapped_once(tmp_path, shape):
    path = write_raster(tmp_path / "odd.tif", reflectance(shape), bands=BANDS)
    tally = np.zeros(shape, int)
    for strip in predict(path, unet_model(), chip_size=64, overlap=16).strips():
        top, left = strip.window.row_off, strip.window.col_off
        tally[top : top + strip.window.height, left : left + strip.window.width] += 1
        assert (strip.ids != 255).all()
    assert (tally == 1).all()


def test_a_scene_without_a_valid_pixel_is_mapped_to_nodata(tmp_path):
    path = write_raster(tmp_path / "void.tif", np.zeros((6, 70, 90), np.int16), bands=BANDS, nodata=0)
    mask = predict(path, unet_model()).to_geotiff(tmp_path / "mask.tif")
    assert mask.pixels == {"land": 0, "water": 0, "nodata": 6300}


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_largest_sum_wins_and_the_first_of_equals(classes, seed):
    sums = np.random.default_rng(seed).integers(0, 4, (classes, 5, 7)).astype(np.float32)
    legend = Legend.of([str(k) for k in range(classes)])
    expected = np.where(sums.max(axis=0) > 0, sums.argmax(axis=0), 255)
    assert_array_equal(largest(sums, legend), expected)
    assert_array_equal(largest(torch.from_numpy(sums), legend), expected)


def test_the_tally_counts_classes_beyond_those_that_occur(scene_path):
    grid = open_scene(scene_path).grid
    tally = Tally(grid, Legend.of(["a", "b", "c"]))
    tally.add(Strip(Window(0, 0, 4, 1), np.array([[0, 0, 2, 255]], np.uint8)))
    assert tally.pixels == {"a": 2, "b": 0, "c": 1, "nodata": 1}
    assert tally.areas_m2 == {"a": 1800.0, "b": 0.0, "c": 900.0}


def test_without_a_model_the_bundled_one_that_reads_the_bands_is_chosen(scene_path):
    assert choose_model(open_scene(scene_path)).info.name == "water"
