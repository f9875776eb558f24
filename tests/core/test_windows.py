"""Windows cover every pixel, and their shares of a pixel add up to one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from geounet.core.windows import Layout, Tiling, edges, offsets, partition, shares
from tests.strategies import layouts, tilings, windows


@given(layouts(), st.data())
def test_cutting_then_stitching_gives_the_line_back(layout, data):
    length, size, _ = layout
    line = data.draw(arrays("uint8", length))
    stitched = np.zeros(length)
    for start, share in zip(offsets(*layout), shares(*layout), strict=True):
        stitched[start : start + size] += line[start : start + size] * share[start : start + size]
    assert_allclose(stitched, line)


@given(layouts())
def test_shares_of_a_pixel_add_up_to_one_and_none_is_negative(layout):
    table = shares(*layout)
    assert_allclose(table.sum(axis=0), 1)
    assert (table >= 0).all()


@given(layouts())
def test_a_layout_has_the_same_shares_piece_by_piece(layout):
    pieces = Layout(*layout)
    table = shares(*layout)
    for row, start, stop, share in zip(table, pieces.starts, pieces.stops, pieces.shares, strict=True):
        assert_allclose(share, row[start:stop], rtol=1e-12)
        assert np.count_nonzero(row) == np.count_nonzero(row[start:stop])


@given(layouts())
def test_every_pixel_is_covered_and_windows_end_with_the_line(layout):
    length, size, stride = layout
    starts = offsets(*layout)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= stride).all()
    assert starts[-1] == max(length - size, 0)  # pulled back, so that no window but a lone one sticks out


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        pytest.param((1000, 512, 384), [0, 384, 488], id="the last is pulled back"),
        pytest.param((1024, 512, 512), [0, 512], id="without overlap"),
        pytest.param((10, 16, 8), [0], id="a line shorter than a window"),
        pytest.param((5, 3, 1), [0, 1, 2], id="pixel by pixel"),
    ],
)
def test_starts_are_those_written_down(layout, expected):
    assert offsets(*layout).tolist() == expected


@pytest.mark.parametrize("layout", [(0, 4, 2), (4, 0, 2), (4, 4, 0), (10, 4, 5)])
def test_layouts_that_leave_pixels_out_are_refused(layout):
    with pytest.raises(ValueError, match=r"stride ≤ size"):
        offsets(*layout)


@given(layouts(), st.data())
def test_the_windows_that_touch_a_stretch_are_those_with_a_pixel_in_it(layout, data):
    pieces = Layout(*layout)
    start = data.draw(st.integers(0, pieces.length - 1))
    stop = data.draw(st.integers(start + 1, pieces.length))
    touching = [i for i, (a, b) in enumerate(zip(pieces.starts, pieces.stops, strict=True)) if a < stop and b > start]
    assert list(pieces.touching(start, stop)) == touching


@given(tilings(), st.data())
def test_a_tiling_has_each_window_once_and_a_target_those_that_touch_it(tiling, data):
    keys = list(tiling.keys())
    assert len(keys) == len(set(keys)) == len(tiling)
    target = data.draw(windows(tiling.shape))
    top, left, bottom, right = edges(target, tiling.shape)

    def touches(key):
        window = tiling.window(*key)
        rows = window.row_off < bottom and window.row_off + window.height > top
        return rows and window.col_off < right and window.col_off + window.width > left

    assert list(tiling.keys(target)) == [key for key in keys if touches(key)]


@pytest.mark.parametrize("overlap", [-1, 64, 100])
def test_an_overlap_as_large_as_a_window_is_refused(overlap):
    with pytest.raises(ValueError, match=r"overlap must be from 0 to 63 pixels"):
        Tiling.of((500, 500), (64, 128), overlap)


@given(st.tuples(st.integers(1, 50), st.integers(1, 50)), st.integers(1, 20))
def test_a_partition_holds_every_pixel_once(shape, size):
    seen = np.zeros(shape, int)
    for window in partition(shape, size):
        assert max(window.height, window.width) <= size
        seen[window.toslices()] += 1
    assert (seen == 1).all()
