"""Names of spectral bands, and what each sensor calls them.

Bands are met by name. Where a file uses a product's own names (``B02``, ``SR_B4``), they are translated
when, and only when, every sensor that has all of those names agrees on what they mean.
"""

from collections.abc import Mapping, Sequence

WAVELENGTHS: Mapping[str, float] = {
    "coastal": 0.443, "blue": 0.49, "green": 0.56, "yellow": 0.605, "red": 0.66,
    "rededge1": 0.705, "rededge2": 0.74, "rededge3": 0.783, "nir": 0.84, "nir08": 0.865, "nir09": 0.945,
    "cirrus": 1.375, "swir1": 1.61, "swir2": 2.2, "thermal": 10.9, "thermal2": 12.0, "pan": 0.59,
}  # fmt: skip
"""Centre wavelength in micrometres of each canonical name; sensors differ by some hundredths."""

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
_OLI = {
    "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "nir", "b6": "swir1", "b7": "swir2", "b8": "pan",
    "b9": "cirrus", "b10": "thermal", "b11": "thermal2",
}  # fmt: skip

SENSORS: Mapping[str, Mapping[str, str]] = {
    "sentinel-2": _S2,
    "hls-l30": _HLS_L30,
    "hls-s30": _S2,
    "landsat-tm": _TM | {f"sr_{k}": v for k, v in _TM.items() if k != "b6"} | {"st_b6": "thermal"},
    "landsat-etm": _TM | {"b8": "pan"},
    "landsat-oli": _OLI | {f"sr_{k}": v for k, v in _OLI.items() if len(k) == 2 and k <= "b7"} | {"st_b10": "thermal"},
}
"""What each sensor's products call their bands (lower case), after the Sentinel-2 MSI, Landsat Collection 2
and HLS v2 user guides."""

SUBSTITUTES: Mapping[str, tuple[str, ...]] = {"nir": ("nir08",), "nir08": ("nir",)}
"""Bands that stand in for each other when one is missing: HLS, say, takes Sentinel-2's B8A for Landsat's B5."""


def canonical(names: Sequence[str]) -> tuple[str, ...]:
    """Band names in geounet's spelling, in the same order; a name that nobody knows stays as it is.

    Examples
    --------
    >>> canonical(["B02", "B03", "B04", "B8A", "B11", "B12"])
    ('blue', 'green', 'red', 'nir08', 'swir1', 'swir2')
    >>> canonical(["SR_B5", "SR_B7"])  # nir, swir2 on Landsat 8; swir1, swir2 on Landsat 5
    ('SR_B5', 'SR_B7')
    >>> canonical(["Red", "NIR", "slope"])
    ('red', 'nir', 'slope')
    """
    keys = [name.strip().lower().replace(" ", "_") for name in names]
    coded = {key for key in keys if any(key in table for table in SENSORS.values())}
    readings = {
        tuple(table[key] for key in sorted(coded)) for table in SENSORS.values() if coded and coded <= table.keys()
    }
    meaning = dict(zip(sorted(coded), readings.pop(), strict=True)) if len(readings) == 1 else {}
    spelt = [meaning.get(key) or _SPELLINGS.get(key, key) for key in keys]
    return tuple(new if new in WAVELENGTHS else name.strip() for new, name in zip(spelt, names, strict=True))


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
