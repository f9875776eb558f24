import numpy as np
import pytest
from numpy.testing import assert_array_equal

from geounet.core.legend import Legend
from geounet.nn.segmenter import BandInfo
from geounet.report import plot_inputs, plot_scored, sheets
from geounet.report.names import short_names

LEGEND = Legend.of(["water", "forest"])
PAN = [BandInfo("pan", percentiles={"1": 0.0, "99": 1000.0})]


def pictures(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


def test_errors_are_tinted_right_pixels_pale_and_unlabelled_ones_clear(tmp_path, drawn, example_of):
    light = [[500, 500, 500], [500, 500, np.nan]]
    one = example_of([[0, 1, 255], [0, 1, 255]], [[0, 0, 0], [1, 1, 0]], light)
    plot_scored([one], PAN, LEGEND, tmp_path / "worst.png")
    image, labels, predicted, errors = pictures(drawn[0])
    water, forest = ([*info.color, 255] for info in LEGEND.classes)
    assert labels[0].tolist() == [water, forest, [0, 0, 0, 0]]
    assert predicted.tolist() == [[water, water, water], [forest, forest, [0, 0, 0, 0]]]
    assert image[..., 3].tolist() == [[255, 255, 255], [255, 255, 0]]
    assert errors[..., 3].tolist() == [[255, 255, 0], [255, 255, 0]]
    for wrong in (errors[0, 1], errors[1, 0]):
        assert wrong[0] > wrong[1] + 50 > wrong[2]  # vermilion
    for right in (errors[0, 0], errors[1, 1]):
        assert right[0] == right[1] == right[2] > 165


def test_captions_say_where_and_how_wrong_in_the_order_given(tmp_path, drawn, example_of):
    many = example_of(np.zeros((4, 4)), np.ones((4, 4)), name="/data/x/a.tif")
    few = example_of([[0, 1], [0, 255]], [[0, 1], [1, 0]], name="/data/y/a.tif")
    plot_scored([many, few], PAN, LEGEND, tmp_path / "worst.png")
    said = [text.get_text() for text in drawn[0].texts]
    assert "1   x/a.tif · row 128, col 64" in said
    assert "100% of 16 labelled pixels wrong · mean IoU 0.00" in said
    assert "2   y/a.tif · row 128, col 64" in said
    assert "33% of 3 labelled pixels wrong · mean IoU 0.50" in said  # water 1/2, forest 1/2


def test_inputs_are_stretched_alike_and_scored_chips_each_by_itself(tmp_path, drawn, example_of):
    ramp = np.linspace(0, 400, 100).reshape(10, 10)
    dark, bright = (example_of(np.zeros((10, 10)), np.zeros((10, 10)), factor * ramp) for factor in (1, 2))
    plot_inputs([dark, bright], PAN, LEGEND, tmp_path / "inputs.png")
    plot_scored([dark, bright], PAN, LEGEND, tmp_path / "worst.png")
    one, _, two, _ = pictures(drawn[0])
    assert (two[1:, :, 0] > one[1:, :, 0]).all()
    one, *_, two, _, _, _ = pictures(drawn[1])
    assert_array_equal(one, two)


def test_the_bands_of_a_scored_chip_keep_their_colour(tmp_path, drawn, example_of):
    bands = [BandInfo(name, percentiles={"1": 0.0, "99": top}) for name, top in (("r", 1000), ("g", 1000), ("b", 100))]
    one = example_of(np.zeros((2, 3)), np.zeros((2, 3)), bands=3)
    one.image[:] = np.array([[0, 400, 800], [0, 400, 800]])[None] * np.array([1, 0.5, 0.1])[:, None, None]
    plot_scored([one], bands, LEGEND, tmp_path / "worst.png")
    red, green, blue = np.moveaxis(pictures(drawn[0])[0][0, :, :3].astype(int), -1, 0)
    assert_array_equal(red, blue)  # the same part of what each spans in training
    assert (red[1:] > green[1:]).all()


def test_noise_over_even_ground_is_not_stretched_to_a_pattern(tmp_path, drawn, example_of):
    noise = 500 + np.random.default_rng(0).normal(0, 1, (20, 20))  # a thousandth of what the band spans
    plot_scored([example_of(np.zeros((20, 20)), np.zeros((20, 20)), noise)], PAN, LEGEND, tmp_path / "worst.png")
    assert np.ptp(pictures(drawn[0])[0][..., 0].astype(int)) < 16


def test_a_band_that_is_withheld_is_grey_and_what_has_no_data_is_clear(tmp_path, drawn, example_of):
    bands = PAN * 3
    one = example_of(np.zeros((2, 2)), bands=3)
    one.image[0] = np.nan
    one.valid[0, 0] = False
    plot_inputs([one], bands, LEGEND, tmp_path / "inputs.png")
    image = pictures(drawn[0])[0]
    assert (image[1, :, 0] == 128).all()
    assert image[..., 3].tolist() == [[0, 255], [255, 255]]


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("draw", [plot_inputs, plot_scored])
def test_nothing_on_a_sheet_overlaps_or_is_cut_off(tmp_path, drawn, example_of, draw, count):
    legend = Legend.of([f"a class of land cover {k}" for k in range(20)])
    labels = np.arange(64).reshape(8, 8) % 20
    scenes = [f"/data/S2B_MSIL2A_20240701T101559_N0510_R065_T33UUP_{k}_a_very_long_name.tif" for k in range(count)]
    chips = [example_of(labels, labels[::-1], name=name, classes=20) for name in scenes]
    draw(chips, PAN, legend, tmp_path / "sheet.png")
    (figure,) = drawn
    renderer = figure.canvas.get_renderer()
    key = figure.legends[0].get_window_extent(renderer)
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes] + [key]
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    for place, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[:place])
    assert len(figure.legends[0].get_texts()) == 20 + (2 if draw is plot_scored else 1)


def test_a_sheet_of_grainy_chips_is_small_enough_to_be_mailed(tmp_path, example_of):
    rng = np.random.default_rng(0)
    chips = []
    for _ in range(10):
        labels, predicted = np.kron(rng.integers(0, 2, (2, 16, 16)), np.ones((16, 16), int))
        one = example_of(labels, predicted, bands=3)
        fields = np.kron(rng.uniform(0, 1000, (3, 16, 16)), np.ones((16, 16)))
        one.image[:] = fields + rng.normal(0, 50, fields.shape)
        chips.append(one)
    path = plot_scored(chips, PAN * 3, LEGEND, tmp_path / "worst.png")
    assert path.stat().st_size < 2e6


def test_bands_of_which_nothing_is_known_are_stretched_by_what_is_there(tmp_path, drawn, example_of):
    ramp = np.linspace(0, 1, 100).reshape(10, 10)
    plot_inputs([example_of(np.zeros((10, 10)), light=ramp)], [BandInfo("codes")], LEGEND, tmp_path / "inputs.png")
    grey = pictures(drawn[0])[0][..., 0]
    assert grey.min() == 0
    assert grey.max() == 255


def test_short_names_tell_apart_what_is_not_one():
    names = ["/a/2019/x.tif", "/b/2019/x.tif", "y.tif", "C:\\data\\z.tif"]
    short = short_names(names)
    assert len(set(short.values())) == 4
    assert short["/a/2019/x.tif"] == "a/2019/x.tif"
    assert short_names(["same.tif", "same.tif"]) == {"same.tif": "same.tif"}
    assert short_names([]) == {}


def test_the_tint_of_errors_is_told_from_greys_by_the_colour_blind():
    red, green, blue = np.array(sheets.WRONG) / 255
    # without long or middle cones a colour is told from grey by blue against yellow
    assert (red + green) / 2 - blue > 0.5
