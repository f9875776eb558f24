"""Bands are met by name, whatever a sensor calls them, and never guessed."""

import pytest

from geounet.core.bands import SENSORS, WAVELENGTHS, canonical, is_unnamed, locate, unnamed


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
