"""Parts of samples replaced by parts of others, or taken away."""

import torch
from torch import Generator, Tensor

from ...core.legend import IGNORE
from ...errors import ConfigError


class CutMix:
    """A rectangle of some samples replaced by the same rectangle of another, pixels and labels together [1]_.

    What lies around a pixel then says less about its class, so a network leans on the pixel's own light more and on the
    place less, and holds at hard edges such as those of a mosaic.

    Parameters
    ----------
    share : float
        Part of the samples that get a rectangle, 0 to 1. Its sides are drawn from 0 to those of the chip.

    Raises
    ------
    ConfigError
        The share is not within 0 and 1.

    References
    ----------
    .. [1] S. Yun et al., CutMix: regularization strategy to train strong classifiers with localizable features,
       ICCV 2019, arXiv:1905.04899; for segmentation G. French et al., BMVC 2020, arXiv:1906.01916.
    """

    def __init__(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"the share of samples to mix is from 0 to 1, not {share}.")
        self.share = share

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Mixed image (N, C, H, W) and labels (N, H, W)."""
        samples, (height, width) = len(image), image.shape[-2:]
        chance = torch.rand(samples, 5, generator=generator, device=generator.device)
        others = torch.randperm(samples, generator=generator, device=generator.device).tolist()
        mixed_image, mixed_labels = image.clone(), labels.clone()
        for sample, (drawn, *corners) in enumerate(chance.tolist()):
            if drawn < self.share:
                top, bottom = sorted(round(part * height) for part in corners[:2])
                left, right = sorted(round(part * width) for part in corners[2:])
                part = slice(top, bottom), slice(left, right)
                mixed_image[sample][:, *part] = image[others[sample]][:, *part]
                mixed_labels[sample][part] = labels[others[sample]][part]
        return mixed_image, mixed_labels


class BandDropout:
    """Bands taken away from samples, so that a map survives a band that is missing, saturated or masked.

    A band that is dropped has no data in the whole sample, which a `Segmenter` shows its network as the band's mean.
    The last band with data is never dropped.

    Parameters
    ----------
    share : float
        Chance of each band of each sample to be dropped, 0 to 1.
    ignore_index : int
        Label of the pixels that had data in dropped bands alone, and so are left with none.

    Raises
    ------
    ConfigError
        The share is not within 0 and 1.
    """

    def __init__(self, share: float, *, ignore_index: int = IGNORE) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"the share of bands to drop is from 0 to 1, not {share}.")
        self.share = share
        self.ignore_index = ignore_index

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Image (N, C, H, W) with NaN in dropped bands, and labels (N, H, W)."""
        samples, bands = image.shape[:2]
        drawn = torch.rand(samples, bands, generator=generator, device=generator.device).to(image.device)
        there = image.isfinite()
        kept = drawn.where(there.flatten(2).any(dim=2), -1.0).argmax(dim=1, keepdim=True)
        dropped = (drawn < self.share).scatter(1, kept, False)[:, :, None, None]
        bare = there.any(dim=1) & ~(there & ~dropped).any(dim=1)
        return image.where(~dropped, torch.nan), labels.where(~bare, self.ignore_index)
