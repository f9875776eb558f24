"""Where the pixels of a raster lie on Earth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS as ProjCRS
from pyproj import Proj, Transformer
from pyproj.enums import TransformDirection
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from ..errors import GridError

AREAL_TOLERANCE = 0.01
"""A projection whose areas are true to this part all over a grid is taken at its word; UTM is true to 0.2 %."""


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """A pixel whose place is known."""

    row: float
    col: float
    x: float
    y: float
    z: float = 0.0
    id: str = ""
    info: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """Georeference by ground control points or by rational polynomials, which stand in for a transform."""

    points: tuple[ControlPoint, ...] = ()
    """Ground control points, their x and y in `crs`."""
    crs: CRS | None = None
    rpcs: Any = None
    """`rasterio.rpc.RPC`, or None."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels laid out on Earth."""

    shape: tuple[int, int]
    """Height and width, in pixels."""
    transform: Affine
    """Takes (col, row) of a pixel's upper-left corner to (x, y) in units of the CRS."""
    crs: CRS | None
    """Reference system of (x, y); None for an image without a place."""
    control: Control | None = None
    """What places the pixels where there is no transform."""
    registration: Literal["Area", "Point"] = "Area"
    """GDAL's AREA_OR_POINT tag, carried to outputs; `transform` means the corner either way."""

    @property
    def window(self) -> Window:
        """The whole grid as a window."""
        height, width = self.shape
        return Window(0, 0, width, height)

    @property
    def placed(self) -> bool:
        """True if a pixel can be found on Earth by transform and CRS."""
        return self.crs is not None and not self.transform.is_identity

    def crop(self, window: Window) -> "Grid":
        """See the grid through `window`; ground control moves along, and a grid that has no place gets none."""
        col, row = int(window.col_off), int(window.row_off)
        control = self.control and replace(
            self.control,
            points=tuple(replace(point, row=point.row - row, col=point.col - col) for point in self.control.points),
            rpcs=_shift_rpcs(self.control.rpcs, row, col),
        )
        return replace(
            self,
            shape=(int(window.height), int(window.width)),
            transform=self.transform if self.transform.is_identity else self.transform @ Affine.translation(col, row),
            control=control,
        )

    def same_pixels(self, other: "Grid", tolerance: float = 1e-3) -> bool:
        """Tell whether two grids lay the same pixels on the same ground, to `tolerance` pixels at every corner."""
        if self.shape != other.shape or self.crs != other.crs:
            return False
        height, width = self.shape
        corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], dtype=float).T
        with np.errstate(all="ignore"):
            there = apply(~other.transform, *apply(self.transform, *corners))
        return bool(np.all(np.abs(there - corners) <= tolerance))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the grid's corners, in units of the CRS."""
        height, width = self.shape
        x, y = apply(self.transform, np.array([0, width, 0, width], float), np.array([0, 0, height, height], float))
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def window_of(self, bounds: tuple[float, float, float, float], crs: CRS | None = None) -> Window:
        """Smallest window that holds the ground inside `bounds`.

        Parameters
        ----------
        bounds : tuple of float
            West, south, east, north.
        crs : CRS, optional
            Of `bounds`; by default the grid's own.

        Raises
        ------
        GridError
            The bounds are empty, lie outside the grid, or are in a CRS that cannot be brought to the grid's.
        """
        west, south, east, north = bounds
        if not (west < east and south < north):
            raise GridError(
                f"bounds {bounds} are empty: give west, south, east, north with west < east, south < north."
            )
        if crs is not None and crs != self.crs:
            if self.crs is None:
                raise GridError(f"bounds are in {crs}, but the scene has no CRS: give them in its own coordinates.")
            try:
                west, south, east, north = transform_bounds(crs, self.crs, *bounds, densify_pts=21)
            except (CRSError, CPLE_BaseError) as error:
                raise GridError(
                    f"bounds {bounds} in {crs} cannot be brought to the scene's {self.crs}: {error}"
                ) from error
            if not np.isfinite([west, south, east, north]).all():
                raise GridError(f"bounds {bounds} in {crs} have no place in the scene's {self.crs}.")
        col, row = apply(~self.transform, np.array([west, east, west, east]), np.array([south, south, north, north]))
        height, width = self.shape
        nearly = 1e-6  # a bound on a pixel's edge stays there
        left, right = int(np.floor(col.min() + nearly)), int(np.ceil(col.max() - nearly))
        top, bottom = int(np.floor(row.min() + nearly)), int(np.ceil(row.max() - nearly))
        left, right, top, bottom = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
        if left >= right or top >= bottom:
            raise GridError(f"bounds {bounds} do not meet the scene, which covers {self.bounds} in {self.crs}.")
        return Window(left, top, right - left, bottom - top)

    @property
    def pixel_size_m(self) -> float | None:
        """Side of a square with the centre pixel's true area, in metres; None for an image without a place."""
        if not self.placed:
            return None
        height, width = self.shape
        area = np.asarray(self.crop(Window(width // 2, height // 2, 1, 1)).pixel_areas())
        size = float(np.sqrt(area.ravel()[0]))
        return size if np.isfinite(size) and size > 0 else None

    def pixel_areas(self, window: Window | None = None) -> NDArray[np.float64]:
        """True area of the pixels in `window`, m²: (), (height, 1) or (height, width), as it varies.

        Planar where the projection keeps areas to 1 % all over the grid, otherwise measured on an equal-area
        plane of the same ellipsoid; NaN off Earth.

        Raises
        ------
        GridError
            The grid has no place on Earth.
        """
        window = window or self.window
        ground = Ground.of(self)
        if ground.unit is not None:
            return np.asarray(abs(self.transform.determinant) * ground.unit**2)
        height, width = int(window.height), int(window.width)
        if ground.columns_alike and self.transform.b == self.transform.d == 0:
            width = 1
        rows, cols = np.mgrid[0 : height + 1, 0 : width + 1].astype(float)
        x, y = apply(self.transform, cols + window.col_off, rows + window.row_off)
        east, north = ground.project(x, y)
        # half the cross product of each pixel's diagonals
        with np.errstate(invalid="ignore"):  # infinite corners
            down = (east[1:, 1:] - east[:-1, :-1], north[1:, 1:] - north[:-1, :-1])
            up = (east[:-1, 1:] - east[1:, :-1], north[:-1, 1:] - north[1:, :-1])
            area = np.abs(down[0] * up[1] - down[1] * up[0]) / 2
        return np.where(np.isfinite(area), area, np.nan)


@dataclass(frozen=True, slots=True)
class Ground:
    """The plane on which lengths and areas of a grid's CRS are measured in metres."""

    unit: float | None
    """Metres in a unit of the CRS, where its plane keeps areas true; None where it does not."""
    columns_alike: bool
    """True if meridians are columns of a north-up grid, so that all pixels of a row have one area."""
    geodetic: ProjCRS
    _to_lonlat: Transformer
    _plane: Proj

    @classmethod
    def of(cls, grid: Grid) -> "Ground":
        """Choose the plane for `grid`.

        Raises
        ------
        GridError
            The grid has no CRS or no transform.
        """
        if grid.crs is None or not grid.placed:
            raise GridError("the raster has no place on Earth (no CRS or no transform), so areas in m² are unknown.")
        return _ground(grid.crs.to_wkt(), grid.bounds)

    def project(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bring (x, y) of the CRS to an equal-area plane around the grid, metres; inf where it is off Earth."""
        lon, lat = self._to_lonlat.transform(x, y)
        east, north = self._plane(lon, lat)
        return np.asarray(east), np.asarray(north)

    def lonlat(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude, degrees, on the CRS's own datum."""
        lon, lat = self._to_lonlat.transform(x, y)
        return np.asarray(lon), np.asarray(lat)


@lru_cache(maxsize=64)
def _ground(wkt: str, bounds: tuple[float, float, float, float]) -> Ground:
    crs = ProjCRS.from_wkt(wkt)
    geodetic = crs.geodetic_crs
    if geodetic is None or (ellipsoid := geodetic.ellipsoid) is None:
        raise GridError(f"the CRS {crs.name!r} does not refer to the Earth, so areas in m² are unknown.")
    to_lonlat = Transformer.from_crs(crs, geodetic, always_xy=True)
    west, south, east, north = bounds
    x, y = np.meshgrid(np.linspace(west, east, 3), np.linspace(south, north, 3))
    lons, lats = (v.ravel() for v in to_lonlat.transform(x, y, direction=TransformDirection.FORWARD))
    unit = None
    if crs.is_projected and np.isfinite([lons, lats]).all():
        scale = np.asarray(Proj(crs).get_factors(lons, lats).areal_scale)
        if np.all(np.abs(scale - 1) <= AREAL_TOLERANCE):
            unit = float(crs.axis_info[0].unit_conversion_factor)
    flattening = (
        f"+rf={ellipsoid.inverse_flattening}" if ellipsoid.inverse_flattening else f"+b={ellipsoid.semi_minor_metre}"
    )
    centre = lons[4] if np.isfinite(lons[4]) else 0.0
    plane = Proj(f"+proj=cea +lat_ts=0 +lon_0={centre} +a={ellipsoid.semi_major_metre} {flattening}")
    method = crs.coordinate_operation.method_name if crs.is_projected and crs.coordinate_operation else ""
    columns_alike = crs.is_geographic or ("Mercator" in method and not {"Transverse", "Oblique"} & set(method.split()))
    return Ground(unit, columns_alike, geodetic, to_lonlat, plane)


def apply(transform: Affine, col: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Arrays of columns and rows sent through an affine transform, (2, ...): x and y, or back with its inverse."""
    a, b, c, d, e, f = transform[:6]
    return np.stack([a * col + b * row + c, d * col + e * row + f])


def _shift_rpcs(rpcs: Any, row: int, col: int) -> Any:
    if rpcs is None or not (row or col):
        return rpcs
    moved = type(rpcs)(**rpcs.to_dict())
    moved.line_off -= row
    moved.samp_off -= col
    return moved


def common_grid(grids: Sequence[tuple[str, Grid]]) -> Grid:
    """Return the grid that all of the named grids share.

    Raises
    ------
    GridError
        One of them lays its pixels elsewhere; the message names it and the difference.
    """
    first, grid = grids[0]
    for name, other in grids[1:]:
        if not grid.same_pixels(other):
            raise GridError(
                f"{name} does not lie on the grid of {first}: shape {other.shape} and {grid.shape}, "
                f"transform {tuple(other.transform)[:6]} and {tuple(grid.transform)[:6]}, CRS {other.crs} and {grid.crs}. "
                "Warp them onto one grid first (gdalwarp, or a VRT with -resolution)."
            )
    return grid
