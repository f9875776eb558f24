"""STAC items, told from other sources and read from files, addresses or their content."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ....errors import SceneError

if TYPE_CHECKING:
    import pystac

ItemSource: TypeAlias = "str | Path | Mapping[str, Any] | pystac.Item"

TIMEOUT = 30.0
"""Seconds that a server has to answer when an item is fetched."""

_API_ITEM = re.compile(r"/collections/[^/]+/items/[^/]+/?$")


def is_item(source: object) -> bool:
    """Tell whether a source is a STAC item, or by its name the file or address of one."""
    if isinstance(source, Mapping):
        return source.get("type") == "Feature" and "assets" in source
    if isinstance(source, (str, Path)):
        parts = urlsplit(str(source))
        remote = parts.scheme in ("http", "https")
        return parts.path.lower().endswith(".json") or (remote and _API_ITEM.search(parts.path) is not None)
    # an item can only come from a module that somebody has imported already
    module = sys.modules.get("pystac")
    return module is not None and isinstance(source, module.Item)


def read_item(item: ItemSource) -> "tuple[str, pystac.Item]":
    """What messages call an item, and the item.

    Raises
    ------
    SceneError
        It cannot be read or fetched, or is no item.
    """
    import pystac

    if isinstance(item, pystac.Item):
        return f"the item {item.id}", item
    if isinstance(item, Mapping):
        content, source, href = dict(item), f"the item {item.get('id', '')}".strip(), None
    else:
        remote = urlsplit(str(item)).scheme in ("http", "https")
        if not remote and "://" in str(item):
            raise SceneError(
                f"{item}: items are read from files and over http(s); fetch this one first, or pass its content."
            )
        source, href = str(item), str(item) if remote else str(Path(item).absolute())
        content = _parsed(source, _fetched(href) if remote else _text(Path(item)))
    kind = content.get("type")
    if kind != "Feature":
        remedy = "Pass one of its items." if kind in ("FeatureCollection", "Collection", "Catalog") else ""
        raise SceneError(f"{source} is not a STAC item: its type is {kind!r}, not 'Feature'. {remedy}".strip())
    if strange := _misshapen(content):
        raise SceneError(f"{source} is not a STAC item that can be understood: {strange}.")
    try:
        return source, pystac.Item.from_dict(content, href=href)
    except (pystac.STACError, pystac.STACTypeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise SceneError(f"{source} is not a STAC item that can be understood: {error}.") from error


def _misshapen(content: Mapping[str, Any]) -> str | None:
    """What in an item is of another kind than the specification says, of that which is read here; None if all is well."""
    assets = content.get("assets")
    if not isinstance(assets, Mapping):
        return f"assets is {_kind(assets)}, not an object"
    for key, asset in assets.items():
        if not isinstance(asset, Mapping):
            return f"the asset {key} is {_kind(asset)}, not an object"
        for field, kind in _ASSET_FIELDS.items():
            if (value := asset.get(field)) is not None and not isinstance(value, kind):
                return f"{field} of the asset {key} is {_kind(value)}, not {_KINDS[kind]}"
        if not all(isinstance(role, str) for role in asset.get("roles") or ()):
            return f"the roles of the asset {key} are not all texts"
    if not isinstance(content.get("properties"), Mapping):
        return f"properties is {_kind(content.get('properties'))}, not an object"
    return None


_KINDS = {str: "a text", list: "a list", dict: "an object", type(None): "missing"}
_ASSET_FIELDS = {"href": str, "type": str, "roles": list, "bands": list, "eo:bands": list, "raster:bands": list}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), f"{value!r}")


def _parsed(source: str, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SceneError(f"{source} is not JSON, so no STAC item: {error}.") from error
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SceneError(f"{path} does not exist; check the name.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(f"{path} cannot be read as a STAC item: {error}.") from error


def _fetched(address: str) -> str:
    request = Request(address, headers={"Accept": "application/geo+json, application/json"})
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            return str(response.read().decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:  # an HTTP error is an OSError, whose text has the status
        raise SceneError(
            f"{address} cannot be fetched: {error}; check the address, and whether it asks for a login."
        ) from error
