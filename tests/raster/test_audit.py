"""Scenes that share ground are found: by footprint where they have a place, by content where they have none."""

import csv
import itertools
import pickle

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Proj, Transformer
from rasterio.crs import CRS

from geounet.core.grid import Grid
from geounet.core.legend import Legend
from geounet.raster.audit import Leaks, Overlap, audit
from geounet.raster.audit.footprint import overlapping
from geounet.raster.gdal import quiet
from geounet.raster.labels import open_labels
from geounet.raster.sampler import MemoryStore, Pair, cached
from geounet.raster.scene import open_scene
from geounet.raster.splitting import split_pairs
from tests.making import PLACE, SHARED, UTM, needs_shared, write_raster

LEGEND = Legend.of(["land", "crop", "water"])


def shifted(rows, cols, transform=PLACE):
    return transform @ Affine.translation(cols, rows)


def found_by(grids):
    return {(o.first, o.second): o for o in overlapping(list(enumerate(grids)))}


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 30), st.integers(1, 30)),
        min_size=2,
        max_size=8,
    ),
    st.sampled_from([UTM, CRS.from_epsg(3035), CRS.from_epsg(32733)]),
)
@settings(max_examples=40, deadline=None)
def test_footprints_overlap_where_pixels_are_shared_and_touching_is_no_overlap(places, crs):
    grids = [Grid((height, width), shifted(row, col), crs) for row, col, height, width in places]
    found = found_by(grids)
    for (i, a), (j, b) in itertools.combinations(enumerate(places), 2):
        rows = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        cols = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        if min(rows, cols) <= 0:
            assert (i, j) not in found
        else:
            assert found[i, j].share == pytest.approx(rows * cols / min(a[2] * a[3], b[2] * b[3]), rel=1e-3)
            pixel = float(grids[i].pixel_size_m) ** 2  # true, where the projection stretches it
            assert found[i, j].area_m2 == pytest.approx(rows * cols * pixel, rel=5e-3)


def test_scenes_in_two_zones_overlap_by_the_ground_they_share():
    # 100 × 100 pixels of 30 m around 18° E in zone 33; the same middle in zone 34, half as long
    def around(epsg, size):
        x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(18.0, 48.0)
        return Grid((size, size), Affine(30, 0, x - 15 * size, 0, -30, y + 15 * size), CRS.from_epsg(epsg))

    found = found_by([around(32633, 100), around(32634, 50)])
    assert found[0, 1].area_m2 == pytest.approx((50 * 30) ** 2, rel=2e-3)
    assert found[0, 1].share == pytest.approx(1.0, abs=1e-6)


def test_the_neighbouring_tiles_of_a_large_mosaic_touch_and_do_not_overlap():
    transform = Affine(10, 0, 300_000, 0, -10, 5_400_000)
    tiles = [
        Grid((10_000, 10_000), shifted(10_000 * i, 10_000 * j, transform), UTM) for i in range(2) for j in range(2)
    ]
    assert not found_by(tiles)
    one_more = Grid((10_000, 10_001), shifted(0, 9_999, transform), UTM)
    assert set(found_by([tiles[0], one_more])) == {(0, 1)}


def test_ground_on_both_sides_of_the_date_line_is_one_ground():
    degrees = CRS.from_epsg(4326)
    over = Grid((100, 100), Affine(0.01, 0, 179.5, 0, -0.01, 10), degrees)  # to 180.5
    west = Grid((100, 100), Affine(0.01, 0, -180, 0, -0.01, 10), degrees)  # from -180
    far = Grid((100, 100), Affine(0.01, 0, 0, 0, -0.01, 10), degrees)
    found = found_by([over, west, far])
    assert set(found) == {(0, 1)}
    assert found[0, 1].share == pytest.approx(0.5, rel=1e-3)


SINUSOIDAL = CRS.from_proj4("+proj=sinu +R=6371007.181 +units=m")
WORLD = {
    "degrees": Grid((120, 360), Affine(1, 0, -180, 0, -1, 60), CRS.from_epsg(4326)),
    "degrees from 0": Grid((180, 360), Affine(1, 0, 0, 0, -1, 90), CRS.from_epsg(4326)),
    "Web Mercator": Grid(
        (256, 256), Affine(156_543.03, 0, -20_037_508, 0, -156_543.03, 20_037_508), CRS.from_epsg(3857)
    ),
    "sinusoidal": Grid((180, 360), Affine(111_195.08, 0, -20_015_114, 0, -111_195.08, 10_007_557), SINUSOIDAL),
    "a disk": Grid((100, 100), Affine(110_000, 0, -5.5e6, 0, -110_000, 5.5e6), CRS.from_proj4("+proj=ortho +lat_0=30")),
}
ARCTIC = Grid((200, 200), Affine(10_000, 0, -1e6, 0, -10_000, 1e6), CRS.from_epsg(3413))
ANTARCTIC = Grid((200, 200), Affine(10_000, 0, -1e6, 0, -10_000, 1e6), CRS.from_epsg(3031))
HEMISPHERE = Grid((256, 256), Affine(50_000, 0, -6.4e6, 0, -50_000, 6.4e6), CRS.from_epsg(6931))
FURTHER = Grid((440, 440), Affine(50_000, 0, -11e6, 0, -50_000, 11e6), CRS.from_epsg(6931))
EUROPE = Grid((400, 400), Affine(1000, 0, 300_000, 0, -1000, 5_400_000), UTM)
ALASKA = Grid((400, 400), Affine(1000, 0, 300_000, 0, -1000, 7_700_000), CRS.from_epsg(32601))  # over 180 degrees
PLACED = WORLD | {
    "the Arctic": ARCTIC, "the Antarctic": ANTARCTIC, "a hemisphere": HEMISPHERE, "more than one": FURTHER,
    "Europe": EUROPE, "Alaska": ALASKA,
}  # fmt: skip


POINTS = 2_000_000
EQUAL_AREA = Proj("+proj=cea +ellps=WGS84")
PER_POINT = 4 * np.pi * 6_371_007.1809**2 / POINTS  # square metres


def ground_of(grid):
    """Which of many places, spread evenly over the Earth on a Fibonacci lattice, a grid holds."""
    number = np.arange(POINTS)
    lon = number * 222.49223594996216 % 360 - 180  # the golden angle
    _, lat = EQUAL_AREA(0 * lon, (2 * number + 1 - POINTS) / POINTS * EQUAL_AREA(0, 90)[1], inverse=True)
    x, y = Transformer.from_crs(4326, grid.crs.to_wkt(), always_xy=True).transform(lon, lat)
    held = np.zeros(POINTS, bool)
    for turn in (-360, 0, 360) if grid.crs.is_geographic else (0,):
        with np.errstate(invalid="ignore"):  # places that a projection does not show
            col, row = ~grid.transform @ (x + turn, y)
        held |= (col >= 0) & (col < grid.shape[1]) & (row >= 0) & (row < grid.shape[0])
    return held


def test_large_and_polar_scenes_share_the_ground_that_counting_points_finds():
    known = {name: ground_of(grid) for name, grid in PLACED.items()}
    found = found_by(list(PLACED.values()))
    for (i, a), (j, b) in itertools.combinations(enumerate(PLACED), 2):
        both = (known[a] & known[b]).sum()
        if both:
            share = both / min(known[a].sum(), known[b].sum())
            # the limb of the disk is known to a row in 256, and a row there is long on the ground
            close = 0.015 if "a disk" in (a, b) else 0.005
            assert found[i, j].area_m2 == pytest.approx(both * PER_POINT, rel=close), (a, b)
            assert found[i, j].share == pytest.approx(share, rel=close), (a, b)
        else:
            assert (i, j) not in found, (a, b)


def test_a_scene_around_the_pole_holds_the_scenes_inside_it():
    inside = [Grid((10, 10), Affine(10_000, 0, x, 0, -10_000, y), CRS.from_epsg(3413)) for x, y in [(0, 0), (4e5, 7e5)]]
    found = found_by([ARCTIC, *inside])
    assert set(found) == {(0, 1), (0, 2)}
    assert all(overlap.share == pytest.approx(1, abs=1e-6) for overlap in found.values())


def test_a_scene_that_lies_beside_the_earth_shares_no_ground():
    disk = CRS.from_proj4("+proj=geos +h=35785831")
    beside = Grid((10, 10), Affine(1000, 0, 6e6, 0, -1000, 0), disk)
    middle = Grid((10, 10), Affine(1000, 0, 0, 0, -1000, 0), disk)
    assert not found_by([beside, beside])
    assert set(found_by([beside, middle, middle])) == {(1, 2)}


def test_tiles_at_the_limb_of_a_projection_touch_and_do_not_overlap():
    side = 1_111_950.5197665  # of a MODIS tile
    tiles = {
        (v, h): Grid((120, 120), Affine(side / 120, 0, (h - 18) * side, 0, -side / 120, (9 - v) * side), SINUSOIDAL)
        for v in (1, 2)
        for h in (11, 12, 13, 14)
    }
    assert not found_by(list(tiles.values()))
    tile = tiles[2, 12]
    lower = Grid(tile.shape, shifted(60, 0, tile.transform), tile.crs)
    assert set(found_by([tile, lower])) == {(0, 1)}


def leaks(overlaps, splits):
    overlaps = tuple(Overlap(i, j, 0.5, "image", shift=(0, 0)) for i, j in overlaps)
    return Leaks(tuple("abcdef"[: len(splits)]), tuple(splits), overlaps)


def test_clusters_hold_what_hangs_together_and_name_the_groups_to_split_by():
    found = leaks([(0, 3), (1, 2), (3, 4)], ["train", "train", "train", "train", "test", "test"])
    assert found.clusters == ((0, 3, 4), (1, 2))
    assert found.groups == ("a", "b", "b", "a", "a", "f")
    assert [(o.first, o.second) for o in found.straddling] == [(3, 4)]
    lines = list(found.sentences())
    assert lines[0].startswith("d (train) and e (test) share 50.0% of the smaller, by the same pixels")
    assert "1 pair of scenes shares ground across splits" in lines[-1]


def test_without_an_overlap_between_splits_there_is_nothing_to_say():
    assert not list(leaks([(0, 1)], ["train", "train", "test"]).sentences())


def scene_of(folder, name, pixels, truth=None, **place):
    place = {"crs": None, "transform": None} | place
    scene = open_scene(write(folder / f"{name}.tif", pixels, nodata=-32_768, **place))
    if truth is None:
        return Pair(scene)
    path = write(folder / f"{name}_truth.tif", truth.astype(np.uint8), nodata=255, **place)
    return Pair(scene, open_labels(path, scene.grid, LEGEND))


def write(path, pixels, **place):
    with quiet():  # rasterio warns of a file without a place as it writes one
        return write_raster(path, pixels, **place)


@pytest.mark.parametrize("seed", range(3))
def test_all_planted_copies_are_found_at_their_shift_and_nothing_else(tmp_path, seed):
    """40 chips of one image of smooth ground: overlaps of 32 × 32 pixels are found, those that only touch are not."""
    rng = np.random.default_rng(seed)
    ground = rng.normal(0, 30, (3, 90, 90)).cumsum(axis=1).cumsum(axis=2).repeat(6, axis=1).repeat(6, axis=2)
    ground = (ground + rng.normal(0, 30, ground.shape)).clip(-30_000, 30_000).astype(np.int16)
    corners = rng.integers(0, 540 - 64, (40, 2)).tolist()
    pairs = [scene_of(tmp_path, i, ground[:, r : r + 64, c : c + 64]) for i, (r, c) in enumerate(corners)]
    found = {(o.first, o.second): o for o in audit({"train": pairs[:20], "test": pairs[20:]}).overlaps}
    for (i, (r, c)), (j, (s, d)) in itertools.combinations(enumerate(corners), 2):
        rows, cols = 64 - abs(r - s), 64 - abs(c - d)
        if min(rows, cols) >= 32:
            assert (i, j) in found
        if min(rows, cols) <= 0:
            assert (i, j) not in found
        if (i, j) in found:
            assert found[i, j].shift == (s - r, d - c)
            assert found[i, j].share == rows * cols / 64**2


def test_copies_across_the_windows_of_large_scenes_are_found(tmp_path):
    ground = np.random.default_rng(0).integers(0, 3000, (1, 1200, 1100)).astype(np.int16)
    pairs = [scene_of(tmp_path, "large", ground), scene_of(tmp_path, "small", ground[:, 1000:1050, 1000:1050])]
    (overlap,) = audit({"all": pairs}).overlaps
    assert overlap == Overlap(0, 1, 1.0, "image", shift=(1000, 1000))


def test_nodata_and_flat_ground_in_common_are_no_copy(tmp_path):
    rng = np.random.default_rng(0)
    pairs = []
    for name in range(3):
        pixels = rng.integers(100, 3000, (1, 96, 96)).astype(np.int16)
        pixels[:, :40], pixels[:, 40:60] = -32_768, 77
        pairs.append(scene_of(tmp_path, name, pixels))
    assert not audit({"train": pairs[:2], "test": pairs[2:]}).overlaps


def test_a_scene_without_a_place_is_compared_by_content_with_those_that_have_one(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 3000, (1, 64, 64)).astype(np.int16)
    placed = [
        scene_of(tmp_path, "here", pixels, crs=UTM, transform=PLACE),
        scene_of(tmp_path, "copy", pixels, crs=UTM, transform=shifted(500, 500)),  # both places are believed
    ]
    found = audit({"train": placed, "test": [scene_of(tmp_path, "lost", pixels[:, 10:])]})
    assert [(o.first, o.second, o.evidence) for o in found.overlaps] == [(0, 2, "image"), (1, 2, "image")]
    nominal = audit({"train": placed[:1], "test": placed[1:]}, georeference="nominal")
    assert [(o.first, o.second, o.evidence) for o in nominal.straddling] == [(0, 1, "image")]


def test_one_static_label_map_betrays_two_dates_and_a_few_like_patches_do_not(tmp_path):
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 3, (40, 40))
    ground = coarse.repeat(4, axis=0).repeat(4, axis=1)
    other = rng.integers(0, 3, (24, 24)).repeat(4, axis=0).repeat(4, axis=1)
    other[:16, :16] = ground[:16, :16]  # like patches, and different all round
    images = rng.integers(100, 3000, (3, 1, 96, 96)).astype(np.int16)
    pairs = [
        scene_of(tmp_path, "first", images[0], ground[:96, :96]),
        scene_of(tmp_path, "second", images[1], ground[40:136, 20:116]),
        scene_of(tmp_path, "third", images[2], other),
    ]
    splits = {"train": pairs[:1], "test": pairs[1:]}
    assert not audit(splits).overlaps
    (overlap,) = audit(splits, static_labels=True).overlaps
    assert (overlap.first, overlap.second, overlap.evidence, overlap.shift) == (0, 1, "labels", (40, 20))


def test_a_scene_split_by_blocks_does_not_leak_and_the_same_scene_whole_does(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 3000, (1, 96, 96)).astype(np.int16)
    truth = rng.integers(0, 3, (24, 24)).repeat(4, axis=0).repeat(4, axis=1)
    whole = scene_of(tmp_path, "one", pixels, truth, crs=UTM, transform=PLACE)
    splits = split_pairs([whole], by="block", size=400, buffer=60)
    for georeference in ("true", "nominal"):
        assert not audit(splits, georeference=georeference).overlaps
        found = audit({"train": splits["train"], "test": [whole]}, georeference=georeference)
        assert len(found.straddling) == 1


def test_blocks_of_one_division_stay_apart_when_pairs_are_cached_or_sent_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 3000, (1, 96, 96)).astype(np.int16)
    truth = rng.integers(0, 3, (24, 24)).repeat(4, axis=0).repeat(4, axis=1)
    whole = scene_of(tmp_path, "one", pixels, truth, crs=UTM, transform=PLACE)
    splits = split_pairs([whole], by="block", size=400, buffer=60)
    ((train,), (test,)) = splits["train"], splits["test"]
    kept = [Pair(cached(p.scene, MemoryStore()), cached(p.labels, MemoryStore())) for p in (train, test)]
    for a, b in [
        kept,
        (pickle.loads(pickle.dumps(train)), pickle.loads(pickle.dumps(test))),
    ]:
        assert not audit({"train": [a], "test": [b]}).overlaps
    other = split_pairs([whole], by="block", size=500, buffer=60)["test"]
    assert len(audit({"train": [train], "test": other}).straddling) == 1


def test_without_labels_there_is_no_label_map_to_compare(tmp_path):
    pixels = np.random.default_rng(0).integers(100, 3000, (2, 1, 64, 64)).astype(np.int16)
    pairs = [scene_of(tmp_path, name, image) for name, image in zip("ab", pixels, strict=True)]
    assert not audit({"train": pairs[:1], "test": pairs[1:]}, static_labels=True).overlaps


@needs_shared
def test_of_235_chips_at_nominal_places_those_of_one_place_are_found_by_images_and_static_map():
    """The groups were found from elevation bands that the chips do not have any more, so some pairs cannot be seen."""
    folder = SHARED / "hls-water"
    legend = Legend.of({code: str(code) for code in range(10, 101, 10)})
    splits, groups = {"train": [], "val": [], "test": []}, []
    with (folder / "splits.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: list(splits).index(row["split"]))
    for row in rows:
        scene = open_scene(folder / row["scene"])
        splits[row["split"]].append(Pair(scene, open_labels(folder / row["worldcover"], scene.grid, legend)))
        groups.append(row["group"])
    found = audit(splits, georeference="nominal", static_labels=True)
    for overlap in found.overlaps:
        if overlap.evidence == "image":
            one, two = shared(found.scenes[overlap.first], found.scenes[overlap.second], overlap.shift)
            assert np.abs(one - two).max() <= 1  # the source rounded some chips anew
            assert (one == two).mean() > 0.99
    truth = {pair for pair in itertools.combinations(range(len(rows)), 2) if groups[pair[0]] == groups[pair[1]]}
    together = {pair for cluster in found.clusters for pair in itertools.combinations(cluster, 2)}
    assert len(truth & together) / len(truth) >= 0.95
    assert len(truth & together) / len(together) >= 0.98
    # nine columns of c032 are the same in c139, to the last digit of seven bands
    assert [(found.scenes[o.first][-8:-4], found.scenes[o.second][-8:-4]) for o in found.straddling] == [
        ("c032", "c139")
    ]
    assert not audit(splits).overlaps  # their nominal places are apart


def shared(first, second, shift):
    """What two chips share, as rasterio reads it."""
    import rasterio

    with rasterio.open(first) as one, rasterio.open(second) as two:
        a, b = one.read(), two.read()
    (down, right), size = shift, 128
    a = a[:, max(down, 0) : size + min(down, 0), max(right, 0) : size + min(right, 0)]
    b = b[:, max(-down, 0) : size + min(-down, 0), max(-right, 0) : size + min(-right, 0)]
    return a, b
