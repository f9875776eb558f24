"""Layouts, grids, legends and rasters of class codes, drawn by hypothesis."""

import numpy as np
from affine import Affine
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.crs import CRS
from rasterio.windows import Window

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.core.windows import Tiling

PLACES = {
    "UTM": (CRS.from_epsg(32633), 30.0, (500_000.0, 5_300_000.0)),
    "degrees": (CRS.from_epsg(4326), 0.001, (15.0, 60.0)),
    "Web Mercator at 60° N": (CRS.from_epsg(3857), 10.0, (1_000_000.0, 8_399_737.0)),
    "feet": (CRS.from_epsg(2263), 3.0, (1_000_000.0, 200_000.0)),
}
"""A CRS, a pixel size in its units, and an upper-left corner."""

ORIENTATIONS = {
    "north-up": Affine.scale(1, -1),
    "south-up": Affine.identity(),
    "rotated": Affine.rotation(30) @ Affine.scale(1, -1),
    "sheared": Affine.shear(20, 5) @ Affine.scale(1, -2),
}


def grid(place, orientation, shape):
    """One of the grids above."""
    crs, size, corner = PLACES[place]
    return Grid(shape, Affine.translation(*corner) @ Affine.scale(size) @ ORIENTATIONS[orientation], crs)


@st.composite
def grids(draw, shapes=None):
    """Grids in several CRS and every orientation."""
    shape = draw(shapes or st.tuples(st.integers(1, 40), st.integers(1, 40)))
    return grid(draw(st.sampled_from(list(PLACES))), draw(st.sampled_from(list(ORIENTATIONS))), shape)


@st.composite
def layouts(draw, longest=200):
    """Length, window size and stride of windows along a line."""
    size = draw(st.integers(1, 64))
    return draw(st.integers(1, longest)), size, draw(st.integers(1, size))


@st.composite
def tilings(draw, longest=60):
    """Tilings of scenes smaller and larger than a window."""
    size = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    shape = draw(st.tuples(st.integers(1, longest), st.integers(1, longest)))
    return Tiling.of(shape, size, draw(st.integers(0, min(size) - 1)))


@st.composite
def windows(draw, shape):
    """Windows inside a scene, never empty."""
    height, width = shape
    row, col = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Window(col, row, draw(st.integers(1, width - col)), draw(st.integers(1, height - row)))


@st.composite
def legends(draw, most=300, low=-(2**31) + 1, high=2**31 - 2):
    """Legends of any whole-number codes."""
    codes = draw(st.lists(st.integers(low, high), min_size=1, max_size=most, unique=True))
    return Legend.of({code: f"class {code}" for code in codes})


def class_rasters(shapes=None, codes=(0, 1, 2, 255)):
    """Rasters of class codes, (height, width) uint8, full of holes and touching corners."""
    shapes = shapes or st.tuples(st.integers(1, 12), st.integers(1, 12))
    return shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from(codes)))
