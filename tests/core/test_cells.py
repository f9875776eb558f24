"""A window's content is known from coarse counts: exactly for whole cells, and nearly for others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from geounet.core.cells import LARGEST_CELL, MOST_NUMBERS, Cells, cell_size, count_cells

SIZE, CLASSES = 4, 2


@st.composite
def scenes(draw):
    """Class ids with holes, and where they are valid."""
    shape = draw(st.tuples(st.integers(1, 23), st.integers(1, 23)))
    ids = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])))
    return ids, draw(arrays(np.bool_, shape))


def kinds(ids, valid):
    """A layer a class and one for what is valid without a class, (3, H, W)."""
    return np.stack([valid & (ids == 0), valid & (ids == 1), valid & (ids == 255)])


def cells_of(ids, valid):
    return Cells.of(ids.shape, SIZE, count_cells(ids, valid, CLASSES, SIZE))


def one(cells, top, left, side):
    return cells.inside(np.array([top]), np.array([left]), side)[0]


@given(scenes())
def test_every_valid_pixel_is_counted_in_its_cell(scene):
    counts = count_cells(*scene, CLASSES, SIZE)
    layers = kinds(*scene)
    for row in range(counts.shape[0]):
        for col in range(counts.shape[1]):
            cell = layers[:, row * SIZE : (row + 1) * SIZE, col * SIZE : (col + 1) * SIZE]
            assert counts[row, col].tolist() == cell.sum(axis=(1, 2)).tolist()
    cells = cells_of(*scene)
    assert cells.totals.tolist() == layers.sum(axis=(1, 2)).tolist()
    for kind in range(CLASSES + 1):
        assert_array_equal(cells.pixels(kind), counts[:, :, kind])


@given(scenes(), st.data())
def test_a_window_of_whole_cells_is_exact(scene, data):
    cells = cells_of(*scene)
    rows, cols = (data.draw(st.integers(0, count - 1)) for count in cells.grid)
    side = SIZE * data.draw(st.integers(1, 7))  # it may stick out
    window = kinds(*scene)[:, rows * SIZE : rows * SIZE + side, cols * SIZE : cols * SIZE + side]
    assert_allclose(one(cells, rows * SIZE, cols * SIZE, side), window.sum(axis=(1, 2)), atol=1e-9)


@given(scenes(), st.integers(-5, 25), st.integers(-5, 25), st.integers(1, 20))
def test_any_window_holds_of_each_cell_the_part_that_it_covers(scene, top, left, side):
    cells, (height, width) = cells_of(*scene), scene[0].shape
    covered = np.zeros((height, width))
    covered[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 1
    expected = np.zeros(CLASSES + 1)
    for row in range(0, height, SIZE):
        for col in range(0, width, SIZE):
            cell = (slice(row, row + SIZE), slice(col, col + SIZE))
            expected += kinds(*scene)[:, *cell].sum(axis=(1, 2)) * covered[cell].mean()
    found = one(cells, top, left, side)
    assert_allclose(found, expected, atol=1e-9)
    assert cells.area(np.array([top]), np.array([left]), side)[0] == covered.sum()
    inside = (kinds(*scene) * covered).sum(axis=(1, 2))
    assert (inside[found < 1e-9] == 0).all()  # nothing that is there is taken for nothing


@given(
    scenes(), st.lists(st.integers(-5, 25), min_size=1), st.lists(st.integers(-5, 25), min_size=1), st.integers(1, 20)
)
def test_a_lattice_holds_what_its_windows_hold(scene, tops, lefts, side):
    cells = cells_of(*scene)
    found = cells.lattice(np.array(tops), np.array(lefts), side)
    assert_allclose(found, [[one(cells, top, left, side) for left in lefts] for top in tops], atol=1e-9)
    labelled = cells.labelled().lattice(np.array(tops), np.array(lefts), side)
    assert_allclose(labelled[:, :, 0], found[:, :, :CLASSES].sum(axis=2), atol=1e-9)


def test_cells_grow_until_the_counts_of_all_scenes_fit():
    shapes = [(20_000, 30_000)] * 50
    size = cell_size(shapes, 9)
    corners = [(height // side + 2) * (width // side + 2) for height, width in shapes for side in (size, size // 2)]
    assert sum(corners[::2]) * 10 <= 1.02 * MOST_NUMBERS < sum(corners[1::2]) * 10
    assert cell_size([(512, 512)], 9) == 1
    assert cell_size([(10_240, 10_240)], 5) == 16
    assert cell_size([(10**6, 10**6)] * 1000, 9) == LARGEST_CELL


@pytest.mark.parametrize("code", [-1, 2, 254, 65535])
def test_an_id_of_no_class_is_valid_ground_without_a_label(code):
    ids = np.full((3, 3), code, np.int64)
    assert count_cells(ids, np.ones((3, 3), bool), CLASSES, SIZE).tolist() == [[[0, 0, 9]]]
