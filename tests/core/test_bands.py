"""Bands are met by name, whatever a sensor calls them, and never guessed."""

import pytest

from geounet.core.bands import (
    CENTRES,
    SENSORS,
    WAVELENGTHS,
    canonical,
    is_unnamed,
    locate,
    reconciled,
    unnamed,
    wavelength,
)
from geounet.errors import BandMismatchError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(
            ["B02", "B03", "B04", "B08"], ["blue", "green", "red", "nir"], id="HLS L30 has no B08, so Sentinel-2"
        ),
        pytest.param(["SR_B2", "SR_B6", "ST_B10"], ["blue", "swir1", "thermal"], id="Landsat 8 by its ST_B10"),
        pytest.param(["SR_B4", "SR_B5"], ["SR_B4", "SR_B5"], id="Landsat 5 and 8 disagree"),
        pytest.param(["Blue", " GREEN ", "Near Infrared"], ["blue", "green", "nir"], id="any spelling"),
        pytest.param(["red", "slope", "B99"], ["red", "slope", "B99"], id="what nobody knows stays"),
        pytest.param(["vv", "B8A"], ["vv", "nir08"], id="one code among other names"),
        pytest.param([], [], id="none"),
    ],
)
def test_names_are_those_of_the_sensors_guides(names, expected):
    assert list(canonical(names)) == expected


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_s_whole_set_of_names_is_understood_and_stays_so(sensor):
    names = list(SENSORS[sensor])
    found = canonical([name.upper() for name in names])
    agreeing = [table for table in SENSORS.values() if set(names) <= table.keys()]
    if len({tuple(table[name] for name in names) for table in agreeing}) == 1:
        assert list(found) == [SENSORS[sensor][name] for name in names]
    assert canonical(found) == found


def test_every_name_of_a_sensor_has_a_wavelength():
    assert {name for table in SENSORS.values() for name in table.values()} <= WAVELENGTHS.keys()


@pytest.mark.parametrize(
    ("wanted", "present", "expected"),
    [
        (["red", "nir"], ["nir", "red"], [1, 0]),
        (["nir"], ["nir08", "nir"], [1]),
        (["nir"], ["nir08"], [0]),
        (["nir08"], ["nir"], [0]),
        (["swir1"], ["swir2"], [None]),
        (["red"], ["red", "red"], [0]),
    ],
)
def test_a_band_is_found_by_its_own_name_before_one_that_may_stand_in(wanted, present, expected):
    assert locate(wanted, present) == expected


@pytest.mark.parametrize(("name", "expected"), [("band_3", True), ("band_", False), ("band_x", False), ("red", False)])
def test_a_name_that_only_says_the_place_is_told_from_a_real_one(name, expected):
    assert is_unnamed(name) is expected
    assert is_unnamed(unnamed(12))


# --- sensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(
            ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"],
            ["coastal", "blue", "green05", "green", "yellow", "red", "rededge1", "nir"],
            id="PlanetScope, eight bands",
        ),
        pytest.param(["OLI_B4", "OLI_B5", "TIRS_B10"], ["red", "nir", "thermal"], id="Landsat 8 in STAC"),
        pytest.param(["TM_B4", "TM_B5"], ["nir", "swir1"], id="Landsat 5 in STAC"),
        pytest.param(["SR_B4", "ST_B6"], ["nir", "thermal"], id="Landsat 5 and 7 agree where 8 has no ST_B6"),
        pytest.param(["blue", "SR_B4", "ST_B10"], ["blue", "red", "thermal"], id="plain names leave codes alone"),
    ],
)
def test_products_by_name(names, expected):
    assert list(canonical(names)) == expected


@pytest.mark.parametrize("sensor", SENSORS)
def test_each_band_of_a_sensor_has_a_centre_near_that_of_its_name(sensor):
    for code, name in SENSORS[sensor].items():
        centre = wavelength(sensor, code)
        assert centre == wavelength(sensor, name) == CENTRES[sensor][name]
        # ETM+'s panchromatic band reaches into the near infrared, OLI's does not
        assert abs(centre / WAVELENGTHS[name] - 1) < (0.25 if name == "pan" else 0.06)
    assert CENTRES[sensor].keys() == set(SENSORS[sensor].values())


@pytest.mark.parametrize(
    ("sensor", "low", "high", "bands"),
    [
        ("landsat-oli", [0.452, 0.533, 0.636, 0.851, 1.566, 2.107], [0.512, 0.590, 0.673, 0.879, 1.651, 2.294],
         ["SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"]),
        ("landsat-tm", [0.45, 0.52, 0.63, 0.76, 1.55, 2.08], [0.52, 0.60, 0.69, 0.90, 1.75, 2.35],
         ["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"]),
        ("planetscope-8", [0.431, 0.465, 0.513, 0.547, 0.600, 0.650, 0.697, 0.845],
         [0.452, 0.515, 0.549, 0.583, 0.620, 0.680, 0.713, 0.885],
         ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"]),
        ("planetscope-4", [0.455, 0.500, 0.590, 0.780], [0.515, 0.590, 0.670, 0.860], ["blue", "green", "red", "nir"]),
        ("naip", [0.435, 0.525, 0.619, 0.808], [0.495, 0.585, 0.651, 0.882], ["blue", "green", "red", "nir"]),
    ],
)  # fmt: skip
def test_centres_are_the_middles_of_the_published_limits(sensor, low, high, bands):
    middles = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    assert [wavelength(sensor, band) for band in bands] == pytest.approx(middles, abs=0.0006)


def test_a_sensor_without_such_a_band_has_no_wavelength_for_it():
    assert wavelength("landsat-tm", "coastal") is None
    assert wavelength("sentinel-2", "slope") is None
    assert wavelength("sentinel-2", "SWIR 1") == 1.614
    with pytest.raises(BandMismatchError, match=r"no sensor is called 'modis' here; there are sentinel-2, "):
        wavelength("modis", "red")


def test_a_known_sensor_settles_what_a_code_means():
    assert canonical(["B05", "B10"], sensor="hls-l30") == ("nir", "thermal")
    assert canonical(["B05", "B10"], sensor="hls-s30") == ("rededge1", "cirrus")
    assert canonical(["B8"], sensor="sentinel-2") == ("B8",)  # only other sensors' files say so


@pytest.mark.parametrize(
    ("codes", "common", "sensor", "expected"),
    [
        pytest.param(["B04", "B04"], ["red", "red"], None, ["red", "red"], id="a band in two assets"),
        pytest.param(["x", "y"], ["rededge", "rededge"], None, ["x", "y"], id="one name for two unknown bands"),
        pytest.param(["x"], ["rededge"], None, ["x"], id="a broad name says too little"),
        pytest.param(
            ["B8A", "B09"], ["rededge", "nir09"], None, ["nir08", "nir09"], id="a code is surer than a broad name"
        ),
        pytest.param(["B05"], ["nir08"], "hls-l30", ["nir"], id="the sensor's reading of the two near infrareds"),
        pytest.param(["B05"], ["nir"], "hls-s30", ["rededge1"], id="a sensor's code goes before a wrong name"),
        pytest.param(["qa", "B02"], ["", ""], None, ["qa", "blue"], id="no common names"),
        pytest.param(["", ""], ["red", "nir"], None, ["red", "nir"], id="no codes"),
    ],
)
def test_codes_and_common_names_are_reconciled(codes, common, sensor, expected):
    assert list(reconciled(codes, common, sensor)) == expected
