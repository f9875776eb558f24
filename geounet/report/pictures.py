"""Pictures of a run folder as parts of a page."""

import base64
from pathlib import Path

from .markup import Html, tag


def figure(path: Path, alt: str, caption: str) -> Html | None:
    """A PNG inside the page, with what it shows in words; None where there is no such file."""
    if not path.is_file():
        return None
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = tag("img", src=f"data:image/png;base64,{data}", alt=alt)
    return tag("figure", image, tag("figcaption", caption))
