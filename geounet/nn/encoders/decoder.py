"""The way up: a map is doubled, and what the way down saw at that size is laid beside it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..blocks import Norm, Upsample, make_level, make_rise
from ..initial import initialise


class Decoder(nn.Module):
    """From the coarsest map to one of the image's size.

    Parameters
    ----------
    seen : mapping of int to int
        Channels of the maps that come in, by how often the image's side was divided; some sizes may be missing.
    widths : sequence of int
        Channels of each level, from the coarsest; the first level's map has half the coarsest map's pixel.
    norm, upsample
        As in `UNet`.
    """

    def __init__(self, seen: Mapping[int, int], widths: Sequence[int], norm: Norm, upsample: Upsample) -> None:
        super().__init__()
        deepest = max(seen)
        self.divided = [deepest // 2**place for place in range(1, len(widths) + 1)]
        self.sizes = sorted(seen)
        before = [seen[deepest], *widths[:-1]]
        self.rise = nn.ModuleList(make_rise(below, here, upsample) for below, here in zip(before, widths, strict=True))
        self.up = nn.ModuleList(
            make_level(here + seen.get(by, 0), here, norm) for here, by in zip(widths, self.divided, strict=True)
        )
        initialise(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map (N, F, H, W), float, from those of the way down, finest first: (N, F', H / r, W / r) for each size r."""
        beside = dict(zip(self.sizes, maps, strict=True))
        image = maps[-1]
        for rise, level, by in zip(self.rise, self.up, self.divided, strict=True):
            image = rise(image)
            image = level(torch.cat([beside[by], image], dim=1) if by in beside else image)
        return image
