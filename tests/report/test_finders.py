"""A search is drawn with the value that was taken from it."""

import numpy as np
import pytest
from PIL import Image

from geounet.report.finders import plot_searches
from geounet.training.plan.finders import BatchSearch, RateSearch, find_batch_size, find_learning_rate, rates_between


def test_each_search_has_a_picture_of_its_name(tmp_path):
    rates = find_learning_rate(lambda rate: abs(np.log10(rate) + 2), rates_between())
    sizes = find_batch_size(lambda size: 1.0 + size, [1, 2, 4])
    drawn = plot_searches((rates, sizes), tmp_path)
    assert [path.name for path in drawn] == ["learning_rate.png", "batch_size.png"]
    for path in drawn:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 5


@pytest.mark.parametrize(
    "search",
    [
        RateSearch((1e-5,), (2.0,), (2.0,), 1e-3, "the loss did not fall"),
        RateSearch((1e-5, 1e-4), (2.0, 2.0), (2.0, 2.0), 1e-3, "the loss did not fall"),
        BatchSearch((1,), (3.0,), 2, 1, "2 do not fit into memory"),
    ],
)
def test_a_search_of_a_point_or_two_is_drawn_as_well(search, tmp_path):
    assert len(plot_searches((search,), tmp_path)) == 1


def test_a_search_that_tried_nothing_has_no_picture(tmp_path):
    assert plot_searches((RateSearch((), (), (), 1e-3, ""), BatchSearch((), (), None, 16, "")), tmp_path) == []
    assert not list(tmp_path.iterdir())
