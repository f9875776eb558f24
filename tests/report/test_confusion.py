import numpy as np
import pytest

from geounet.core.metrics import Confusion
from geounet.report import plot_confusion


@pytest.mark.parametrize("classes", [1, 2, 5, 12, 20])
def test_every_number_of_a_confusion_table_fits_its_cell(tmp_path, drawn, classes):
    counts = np.random.default_rng(classes).integers(0, 10**9, (classes, classes))
    plot_confusion(Confusion(counts), [f"class number {k}" for k in range(classes)], tmp_path / "confusion.png")
    (figure,) = drawn
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        cell = axes.get_window_extent(renderer).width / classes
        texts = [text for text in axes.texts if text.get_text()]
        assert len(texts) == classes**2
        assert max(text.get_window_extent(renderer).width for text in texts) < cell
        assert min(text.get_fontsize() for text in texts) >= 7
        ticks = [label.get_window_extent(renderer) for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
        assert min(box.x0 for box in ticks) >= 0
        assert min(box.y0 for box in ticks) >= 0


def test_confusion_shares_are_of_the_true_class(tmp_path, drawn):
    plot_confusion(Confusion(np.array([[30, 10], [0, 0]])), ["a", "b"], tmp_path / "confusion.png")
    pixels, shares = ([text.get_text() for text in axes.texts] for axes in drawn[0].axes)
    assert pixels == ["30", "10", "0", "0"]
    assert shares == ["75.0", "25.0", "–", "–"]  # no pixel is truly b


def test_a_confusion_needs_a_name_for_each_class(tmp_path):
    with pytest.raises(ValueError, match="2 classes need as many names, not 1"):
        plot_confusion(Confusion.empty(2), ["a"], tmp_path / "confusion.png")
