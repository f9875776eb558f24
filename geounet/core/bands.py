"""Names of spectral bands, what each sensor calls them, and the light each one sees.

Bands are met by name. Where a file uses a product's own names (``B02``, ``SR_B4``), they are translated
when, and only when, every sensor that has all of those names agrees on what they mean.
"""

from collections.abc import Mapping, Sequence

from ..errors import BandMismatchError

WAVELENGTHS: Mapping[str, float] = {
    "coastal": 0.443, "blue": 0.49, "green05": 0.531, "green": 0.56, "yellow": 0.605, "red": 0.66,
    "rededge1": 0.705, "rededge2": 0.74, "rededge3": 0.783, "nir": 0.84, "nir08": 0.865, "nir09": 0.945,
    "cirrus": 1.375, "swir1": 1.61, "swir2": 2.2, "thermal": 10.9, "thermal2": 12.0, "pan": 0.59,
}  # fmt: skip
"""Centre wavelength in micrometres of each canonical name; sensors differ by some hundredths (`CENTRES`)."""

_SPELLINGS: Mapping[str, str] = {
    "coastal_aerosol": "coastal", "ultra_blue": "coastal", "aerosol": "coastal", "b": "blue", "g": "green", "r": "red",
    "near_infrared": "nir", "near-infrared": "nir", "n": "nir", "nir1": "nir", "nir_narrow": "nir08", "nir_1": "nir",
    "swir_1": "swir1", "swir_2": "swir2", "swir16": "swir1", "swir22": "swir2", "rededge071": "rededge1",
    "rededge075": "rededge2", "rededge078": "rededge3", "red_edge_1": "rededge1", "red_edge_2": "rededge2",
    "red_edge_3": "rededge3", "panchromatic": "pan", "lwir": "thermal", "lwir11": "thermal", "lwir12": "thermal2",
    "tir": "thermal",
}  # fmt: skip

_S2 = {
    "b01": "coastal", "b02": "blue", "b03": "green", "b04": "red", "b05": "rededge1", "b06": "rededge2",
    "b07": "rededge3", "b08": "nir", "b8a": "nir08", "b09": "nir09", "b10": "cirrus", "b11": "swir1", "b12": "swir2",
}  # fmt: skip
_HLS_L30 = {
    "b01": "coastal", "b02": "blue", "b03": "green", "b04": "red", "b05": "nir", "b06": "swir1", "b07": "swir2",
    "b09": "cirrus", "b10": "thermal", "b11": "thermal2",
}  # fmt: skip
_TM = {"b1": "blue", "b2": "green", "b3": "red", "b4": "nir", "b5": "swir1", "b6": "thermal", "b7": "swir2"}
_ETM = _TM | {"b8": "pan"}
_OLI = {
    "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "nir", "b6": "swir1", "b7": "swir2", "b8": "pan",
    "b9": "cirrus", "b10": "thermal", "b11": "thermal2",
}  # fmt: skip
_RGBN = {name: name for name in ("blue", "green", "red", "nir")}


def _level2(level1: Mapping[str, str], thermal: str) -> dict[str, str]:
    """Surface reflectance and temperature of Landsat Collection 2, after the bands they are made from."""
    reflective = {f"sr_{code}": name for code, name in level1.items() if len(code) == 2 and code <= "b7"}
    return {code: name for code, name in reflective.items() if name != "thermal"} | {f"st_{thermal}": "thermal"}


def _prefixed(prefix: str, codes: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}_{code}": name for code, name in codes.items()}


SENSORS: Mapping[str, Mapping[str, str]] = {
    "sentinel-2": _S2,
    "hls-l30": _HLS_L30,
    "hls-s30": _S2,
    "landsat-tm": _TM | _level2(_TM, "b6") | _prefixed("tm", _TM),
    "landsat-etm": _ETM | _level2(_ETM, "b6") | _prefixed("etm", _ETM),
    "landsat-oli": (
        _OLI
        | _level2(_OLI, "b10")
        | _prefixed("oli", {code: name for code, name in _OLI.items() if not name.startswith("thermal")})
        | _prefixed("tirs", {"b10": "thermal", "b11": "thermal2"})
    ),
    "planetscope-4": _RGBN,
    "planetscope-8": {
        "coastal_blue": "coastal", "blue": "blue", "green_i": "green05", "green": "green", "green_ii": "green",
        "yellow": "yellow", "red": "red", "rededge": "rededge1", "nir": "nir",
    },
    "naip": _RGBN,
}  # fmt: skip
"""What each sensor's products call their bands (lower case) [1]_ [2]_ [3]_ [4]_. STAC items of Landsat put the
instrument before the number (``OLI_B4``, ``TM_B3``).

References
----------
.. [1] ESA, Sentinel-2 User Handbook, issue 1.2, 2015.
.. [2] USGS, Landsat 4-7 (LSDS-1618) and Landsat 8-9 (LSDS-1619) Collection 2 Level 2 Science Product Guides.
.. [3] J. Masek et al., Harmonized Landsat Sentinel-2 (HLS) Product User Guide, version 2.0, NASA, 2021.
.. [4] Planet Labs, PlanetScope Product Specifications, 2022: 4-band scenes, and the 8-band asset of SuperDoves.
"""

_MSI_CENTRES = {
    "coastal": 0.443, "blue": 0.492, "green": 0.560, "red": 0.665, "rededge1": 0.704, "rededge2": 0.740,
    "rededge3": 0.783, "nir": 0.833, "nir08": 0.865, "nir09": 0.945, "cirrus": 1.374, "swir1": 1.614, "swir2": 2.202,
}  # fmt: skip
_OLI_CENTRES = {
    "coastal": 0.443, "blue": 0.482, "green": 0.561, "red": 0.655, "nir": 0.865, "swir1": 1.609, "swir2": 2.201,
    "cirrus": 1.373, "thermal": 10.895, "thermal2": 12.005,
}  # fmt: skip

CENTRES: Mapping[str, Mapping[str, float]] = {
    "sentinel-2": _MSI_CENTRES,
    "hls-l30": _OLI_CENTRES,
    "hls-s30": _MSI_CENTRES,
    "landsat-tm": {
        "blue": 0.485, "green": 0.56, "red": 0.66, "nir": 0.83, "swir1": 1.65, "swir2": 2.215, "thermal": 11.45,
    },
    "landsat-etm": {
        "blue": 0.485, "green": 0.56, "red": 0.66, "nir": 0.835, "swir1": 1.65, "swir2": 2.22, "thermal": 11.45,
        "pan": 0.71,
    },
    "landsat-oli": _OLI_CENTRES | {"pan": 0.59},
    "planetscope-4": {"blue": 0.485, "green": 0.545, "red": 0.63, "nir": 0.82},
    "planetscope-8": {
        "coastal": 0.4415, "blue": 0.49, "green05": 0.531, "green": 0.565, "yellow": 0.61, "red": 0.665,
        "rededge1": 0.705, "nir": 0.865,
    },
    "naip": {"blue": 0.465, "green": 0.555, "red": 0.635, "nir": 0.845},
}  # fmt: skip
"""Centre wavelength in micrometres of each sensor's bands, by canonical name.

Sentinel-2's are the central wavelengths of Sentinel-2A's response [1]_; those of 2B and 2C lie within 0.017.
The others are middles of the band limits: Landsat's [2]_, those of HLS, which keeps its sources' bands [3]_,
PlanetScope's (PS2 of the first Doves for four bands, PSB.SD for eight) [4]_, and, for NAIP, which is flown
with cameras of several makers, the Leica ADS100's [5]_.

References
----------
.. [1] ESA, Sentinel-2 Spectral Response Functions, COPE-GSEG-EOPG-TN-15-0007, version 3.0.
.. [2] USGS, What are the band designations for the Landsat satellites?; B. L. Markham and J. L. Barker, Spectral
   characterization of the Landsat Thematic Mapper sensors, Int. J. Remote Sensing 6 (1985) 697-716.
.. [3] J. Masek et al., Harmonized Landsat Sentinel-2 (HLS) Product User Guide, version 2.0, NASA, 2021.
.. [4] Planet Labs, PlanetScope Product Specifications, 2022.
.. [5] Leica Geosystems, ADS100 Airborne Digital Sensor, data sheet.
"""

SUBSTITUTES: Mapping[str, tuple[str, ...]] = {"nir": ("nir08",), "nir08": ("nir",)}
"""Bands that stand in for each other when one is missing: HLS, say, takes Sentinel-2's B8A for Landsat's B5."""


def canonical(names: Sequence[str], sensor: str | None = None) -> tuple[str, ...]:
    """Band names in geounet's spelling, in the same order; a name that nobody knows stays as it is.

    Parameters
    ----------
    names : sequence of str
        Together they tell the sensor: the more there are, the fewer have them all.
    sensor : str, optional
        A key of `SENSORS`, where the sensor is known; it then settles what its own codes mean.

    Examples
    --------
    >>> canonical(["B02", "B03", "B04", "B8A", "B11", "B12"])
    ('blue', 'green', 'red', 'nir08', 'swir1', 'swir2')
    >>> canonical(["SR_B5", "SR_B7"])  # nir, swir2 on Landsat 8; swir1, swir2 on Landsat 5
    ('SR_B5', 'SR_B7')
    >>> canonical(["Red", "NIR", "slope"])
    ('red', 'nir', 'slope')
    >>> canonical(["SR_B5", "SR_B7"], sensor="landsat-tm")
    ('swir1', 'swir2')
    """
    keys = [_key(name) for name in names]
    meaning = SENSORS[sensor] if sensor else _agreed(keys)
    spelt = [meaning.get(key) or _SPELLINGS.get(key, key) for key in keys]
    return tuple(new if new in WAVELENGTHS else name.strip() for new, name in zip(spelt, names, strict=True))


def _agreed(keys: Sequence[str]) -> Mapping[str, str]:
    """Meaning of each product's name among some, where all sensors that have them agree."""
    coded = sorted({key for key in keys if _is_code(key)})
    readings = {tuple(SENSORS[sensor][key] for key in coded) for sensor in sensors_of(coded)}
    return dict(zip(coded, readings.pop(), strict=True)) if len(readings) == 1 else {}


def reconciled(codes: Sequence[str], common: Sequence[str], sensor: str | None = None) -> tuple[str, ...]:
    """Names in geounet's spelling of bands that have a product's name and, some of them, a common name.

    A common name counts where it is known, means one light, and no band of another product name has it too:
    catalogues call three or four of Sentinel-2's bands ``rededge``, while the codes of HLS mean one light on one
    satellite and another on the next. Of the two near infrareds, the product's own reading is kept; and where the sensor is
    known, what its codes mean goes before all common names.

    Parameters
    ----------
    codes, common : sequence of str
        One a band; `common` is empty where a band has none.
    sensor : str, optional
        As in `canonical`.

    Examples
    --------
    >>> reconciled(["B05", "B06", "B8A"], ["rededge", "rededge", "nir08"])
    ('rededge1', 'rededge2', 'nir08')
    >>> reconciled(["B05", "B06", "B10"], ["nir08", "swir16", "lwir11"])  # HLS from Landsat
    ('nir08', 'swir1', 'thermal')
    >>> reconciled(["B05", "B06", "B10"], ["nir08", "swir16", "lwir11"], sensor="hls-l30")
    ('nir', 'swir1', 'thermal')
    """
    read = canonical(codes, sensor)
    said = [canonical([name])[0] if name else "" for name in common]
    holders: dict[str, set[str]] = {}
    for code, name in zip(codes, said, strict=True):
        holders.setdefault(name, set()).add(_key(code))
    names = []
    for known, name, spelt in zip(read, said, common, strict=True):
        settled = sensor is not None and known in WAVELENGTHS
        alone = name in WAVELENGTHS and len(holders[name]) == 1 and _key(spelt) not in _BROAD
        names.append(name if alone and not settled and known not in SUBSTITUTES.get(name, ()) else known)
    return tuple(names)


_BROAD = frozenset(["rededge"])
"""Common names that span the light of several canonical ones."""


def sensors_of(names: Sequence[str]) -> tuple[str, ...]:
    """Sensors whose products have all of these names, a product's or geounet's.

    Examples
    --------
    >>> sensors_of(["B8A", "B12"])
    ('sentinel-2', 'hls-s30')
    >>> sensors_of(["coastal", "SR_B7"])
    ('landsat-oli',)
    """
    keys = {_key(name) for name in names}
    return tuple(sensor for sensor, table in SENSORS.items() if keys <= table.keys() | CENTRES[sensor].keys())


def wavelength(sensor: str, band: str) -> float | None:
    """Centre wavelength of a sensor's band in micrometres; None where the sensor has no such band.

    Parameters
    ----------
    sensor : str
        A key of `SENSORS`.
    band : str
        In geounet's spelling or the product's.

    Raises
    ------
    BandMismatchError
        Nothing is known of the sensor.

    Examples
    --------
    >>> wavelength("landsat-oli", "nir"), wavelength("landsat-tm", "SR_B4")
    (0.865, 0.83)
    """
    if sensor not in SENSORS:
        raise BandMismatchError(f"no sensor is called {sensor!r} here; there are {', '.join(SENSORS)}.")
    key = _key(band)
    return CENTRES[sensor].get(SENSORS[sensor].get(key) or _SPELLINGS.get(key, key))


def _key(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _is_code(key: str) -> bool:
    """Tell whether a name needs a sensor to be understood."""
    return key not in WAVELENGTHS and any(key in table for table in SENSORS.values())


def locate(wanted: Sequence[str], present: Sequence[str]) -> list[int | None]:
    """Where each wanted band stands among those present, from 0; None where it is missing.

    A band is found by its own name, else by one that may stand in for it.

    Examples
    --------
    >>> locate(["red", "nir", "swir1"], ["nir08", "red"])
    [1, 0, None]
    """
    at = {name: index for index, name in reversed(list(enumerate(present)))}
    return [next((at[n] for n in (name, *SUBSTITUTES.get(name, ())) if n in at), None) for name in wanted]


def unnamed(index: int) -> str:
    """Name of a band that the file leaves without one; `index` counts from 1.

    Examples
    --------
    >>> unnamed(3)
    'band_3'
    """
    return f"band_{index}"


def is_unnamed(name: str) -> bool:
    """Tell whether a name only says where the band stands in its file."""
    return name.startswith("band_") and name[5:].isdigit()
