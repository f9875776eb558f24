import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from geounet.core.legend import Legend
from geounet.errors import OutputExistsError
from geounet.report import plot_curves
from geounet.report.figures import line_color

HISTORY = [
    {"epoch": 1, "loss": 2.0, "val_loss": 2.1, "val_miou": 0.3, "learning_rate": 1e-3, "val_iou_water": 0.4, "val_iou_a b": 0.2},
    {"epoch": 2, "loss": 1.0, "val_loss": 1.2, "val_miou": 0.6, "learning_rate": 5e-4, "val_iou_water": 0.7, "val_iou_a b": np.nan},
    {"epoch": 3, "loss": 0.5, "val_loss": 1.4, "val_miou": 0.5, "learning_rate": 1e-4, "val_iou_water": 0.6, "val_iou_a b": 0.4},
]  # fmt: skip


def test_curves_mark_the_epoch_with_the_best_mean_iou(tmp_path, drawn):
    path = plot_curves(HISTORY, tmp_path / "curves.png")
    losses, scores, _ = drawn[0].axes
    (star,) = [line for line in scores.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[2, 0.6]]
    assert "0.600, epoch 2" in scores.get_title(loc="left")
    assert losses.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.5]
    assert [text.get_text() for text in scores.get_legend().get_texts()] == ["water", "a b", "mean"]
    assert imread(path).shape[2] == 4


def test_curves_of_one_epoch_and_of_undefined_scores_can_be_drawn(tmp_path):
    lost = [{**HISTORY[0], "val_miou": np.nan}]
    assert plot_curves(lost, tmp_path / "curves.png").is_file()


def test_curves_of_no_epoch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no epochs"):
        plot_curves([], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_that_is_there_is_kept_unless_overwriting_is_asked_for(tmp_path):
    path = plot_curves(HISTORY, tmp_path / "curves.png")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="exists already"):
        plot_curves(HISTORY[:2], path)
    assert path.read_bytes() == before
    plot_curves(HISTORY[:2], path, overwrite=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


def test_classes_have_the_colours_of_their_legend_as_dark_as_lines_on_white_need(tmp_path, drawn):
    legend = Legend.of(["water", "a b"], {"water": "#102030", "a b": "#fffff0"})
    plot_curves(HISTORY, tmp_path / "curves.png", legend=legend)
    water, pale, *_ = drawn[0].axes[1].lines
    assert to_rgb(water.get_color()) == to_rgb("#102030")
    assert to_rgb(pale.get_color()) == line_color((255, 255, 240))
    red, green, blue = line_color((255, 255, 240))
    assert red == green > blue  # darker, and of the same hue
    assert 0.4 < red < 0.6  # linear light of (1 + 0.05) / 3 - 0.05 = 0.3 is a byte of 0.58
    assert water.get_linestyle() != pale.get_linestyle()


@pytest.mark.parametrize("names", [["_hidden", "$x$ and $y"], [f"a class of land cover {k}" for k in range(40)]])
def test_the_key_names_every_class_and_lies_between_the_panels(tmp_path, drawn, names):
    history = [{key: row[key] for key in list(row)[:5]} | {f"val_iou_{name}": 0.5 for name in names} for row in HISTORY]
    plot_curves(history, tmp_path / "curves.png")
    (figure,) = drawn
    _, scores, rates = figure.axes
    renderer = figure.canvas.get_renderer()
    key = scores.get_legend().get_window_extent(renderer)
    assert len(scores.get_legend().get_texts()) == len(names) + 1
    assert key.x0 >= scores.get_window_extent(renderer).x1
    assert key.x1 <= min(label.get_window_extent(renderer).x0 for label in rates.get_yticklabels() if label.get_text())
    assert key.y0 >= 0
    assert scores.get_ylim() == (0, 1)
