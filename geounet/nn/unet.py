"""U-Net: class scores of every pixel, from what is near it and what is around it."""

from itertools import count, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from .blocks import Convolutions, Norm, Upsample, channels_of, check, make_level, make_rise, two_from_one
from .extent import Extent, crop, mirror, pad_to
from .initial import RAREST, initialise, set_prior

__all__ = ["RAREST", "Convolutions", "Norm", "UNet", "Upsample", "initialise", "pad_to", "set_prior"]


class UNet(nn.Module):
    """U-Net [1]_ with convolutions that keep the image's size, or with those of the paper that do not.

    A level is twice (3 × 3 convolution, normalisation, ReLU). Going down, the image is halved by 2 × 2 maxima and the
    channels doubled; going up, the image is doubled, the channels halved, and what the same level saw on the way down
    is laid beside. Weights are drawn as He et al. [3]_ say; `initialise` draws them by another rule.

    Parameters
    ----------
    in_channels, classes : int
        Bands C that come in, classes K that go out.
    depth : int
        Halvings of the image, 1 to 8. The paper has 4.
    width : int
        Channels of the first level; the paper has 64. Level l has ``min(width * 2**l, max_width)``.
    norm : {'batch', 'group', 'none'}
        Group normalisation (16 channels a group, [2]_) does not need large batches, but its statistics are the
        chip's own, so a pixel's class then depends a little on where chips are cut.
    upsample : {'transposed', 'bilinear'}
        Learnt 2 × 2 transposed convolution as in the paper, or 1 × 1 convolution and bilinear interpolation.
    dropout : float
        Share of the deepest level's channels that are zeroed in training, 0 to below 1.
    max_width : int, optional
        Upper bound for the channels of any level.
    convolutions : {'same', 'valid'}
        Padded with zeros, or not at all as in the paper: what the way down saw is cropped before it is laid beside,
        and the image is mirrored at its edges before the first level, so that every pixel gets a score all the same.
        Away from the edges equal weights give equal scores either way; ``valid`` computes more (see Notes).
    residual : bool
        A level adds what it was given to what it made of it [4]_.
    sigmoid : bool
        Of two classes: the last layer has one channel z, and the logits are (0, z), whose softmax is (1 - σ(z), σ(z))
        and whose cross-entropy is the binary one. All that takes logits of two classes takes these.

    Attributes
    ----------
    arguments : dict
        What the network was made with, as plain values for JSON; ``UNet(**arguments)`` has the same layers. The last
        three are left out where they are as by default, so that files of models made before are what they were.
    stride : int
        ``2**depth`` pixels, the side of the deepest level's pixels.
    receptive_field : int
        Pixels: side of the square around a pixel beyond which nothing can change its scores (largest over where
        the pixel lies in the deepest level's pixel).
    margin : int
        Pixels that a score looks to one side at most. Chips that start at multiples of `stride` and are read with so
        much of their surroundings give the scores of the whole image; so do chips that overlap by twice as much, in
        the middle of each (not with group normalisation).
    border : int
        Pixels by which unpadded convolutions make the image smaller on each side, 92 for the paper's network (572
        pixels in, 388 out); 0 for ``same``.
    head : torch.nn.Conv2d
        Last layer, 1 × 1, whose bias `set_prior` sets.

    Raises
    ------
    ConfigError
        An argument is of the wrong type or out of range.

    Notes
    -----
    =====  ===============  ======  =======  =============  =============
    depth  receptive field  margin  border   parameters     parameters
           (transposed)             (valid)  for width 32   for width 64
    =====  ===============  ======  =======  =============  =============
    2      44               23      20       468 297        1 866 377
    3      100              51      44       1 928 137      7 702 409
    4      204              107     92       7 764 169      31 039 881
    5      412              219     188      31 101 641     124 376 457
    =====  ===============  ======  =======  =============  =============

    Parameters are for 6 bands, 9 classes, batch normalisation and transposed convolutions; each level more has four
    times as many, unless `max_width` bounds it.

    Images of any size, one pixel at least, are padded on the right and below to a multiple of `stride` and the logits
    cropped back. The padding repeats the last row and column: reflection would need more pixels than it adds, and
    zeros would be an edge that is not there. A traced network (`torch.jit.trace`) has no padding: give it multiples
    of `stride`.

    With ``valid`` the image is mirrored instead, traced or not, by `border` and up to `stride` - 1 pixels more on each
    side: the first level then sees (H + 188) (W + 188) pixels at depth 4, three times as many for chips of 256 pixels
    and 1.4 times for 1024. A network of 2 classes that is not `sigmoid` has two channels; of 1 class, one, whose
    sigmoid is for the loss to take.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation,
       MICCAI 2015, arXiv:1505.04597.
    .. [2] Y. Wu, K. He, Group normalization, ECCV 2018, arXiv:1803.08494.
    .. [3] K. He et al., Delving deep into rectifiers, ICCV 2015, arXiv:1502.01852.
    .. [4] K. He et al., Deep residual learning for image recognition, CVPR 2016, arXiv:1512.03385.

    Examples
    --------
    >>> network = UNet(6, 9, depth=2, width=8)
    >>> network(torch.zeros(1, 6, 50, 70)).shape
    torch.Size([1, 9, 50, 70])
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        depth: int = 4,
        width: int = 64,
        norm: Norm = "batch",
        upsample: Upsample = "transposed",
        dropout: float = 0.0,
        max_width: int | None = None,
        convolutions: Convolutions = "same",
        residual: bool = False,
        sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels, "classes": classes, "depth": depth, "width": width, "norm": norm,
            "upsample": upsample, "dropout": dropout, "max_width": max_width,
        }  # fmt: skip
        later = {"convolutions": convolutions, "residual": residual, "sigmoid": sigmoid}
        check(self.arguments | later)
        self.arguments["dropout"] = float(dropout)
        self.arguments |= {name: value for name, value in later.items() if value not in ("same", False)}
        self.extent = Extent(depth, upsample == "bilinear", convolutions == "valid")
        self.stride = self.extent.stride
        self.receptive_field = self.extent.receptive_field
        self.margin, self.border = self.extent.margin, self.extent.border
        self.sigmoid = sigmoid

        widths = channels_of(depth, width, max_width)
        self.down = nn.ModuleList(
            make_level(before, after, norm, convolutions, residual=residual)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.rise = nn.ModuleList(make_rise(below, here, upsample) for here, below in pairwise(widths))
        self.up = nn.ModuleList(
            make_level(2 * here, here, norm, convolutions, residual=residual) for here in widths[:-1]
        )
        self.head = nn.Conv2d(widths[0], 1 if sigmoid else classes, kernel_size=1)
        # What interpolation takes from beyond the image is a guess, which unpadded convolutions do without.
        self._guessed = int(self.extent.valid and self.extent.interpolated)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores of every pixel.

        Parameters
        ----------
        image : Tensor (N, C, H, W), float
            Standardised bands, finite.

        Returns
        -------
        Tensor (N, K, H, W), float
            Logits: before softmax.
        """
        height, width = image.shape[-2:]
        if self.extent.valid:
            logits = crop(self._logits(mirror(image, self.extent.frame, self.stride)), self.extent.frame - self.border)
            return logits[..., :height, :width]
        # Sizes are symbols in a trace, and a branch on them would be frozen into the graph.
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return self._logits(image)
        return self._logits(pad_to(image, self.stride))[..., :height, :width]

    def inside(self, image: Tensor) -> Tensor:
        """Class scores of the pixels that unpadded convolutions leave of an image; nothing is made up around it.

        Parameters
        ----------
        image : Tensor (N, C, H, W), float
            Standardised bands, finite; sides plus 4 are multiples of `stride` (572 in the paper), or for ``same``
            convolutions the sides are.

        Returns
        -------
        Tensor (N, K, H - 2 border, W - 2 border), float
            Logits: before softmax.

        Raises
        ------
        ConfigError
            The image cannot be halved so often, or nothing would be left of it.
        """
        if not all(map(self.extent.fits, image.shape[-2:])):
            least = next(filter(self.extent.fits, count(1)))
            raise ConfigError(
                f"an image of {image.shape[-2]} × {image.shape[-1]} pixels cannot be halved {self.extent.depth} times and "
                f"leave something; sides are {least}, {least + self.stride}, {least + 2 * self.stride}, … pixels."
            )
        return self._logits(image)

    def _logits(self, image: Tensor) -> Tensor:
        seen = []
        for level in self.down[:-1]:
            image = level(image)
            seen.append(image)
            image = functional.max_pool2d(image, 2)
        image = self.dropout(self.down[-1](image))
        lost = self.extent.lost
        for rise, level, beside, rim in zip(
            reversed(self.rise), reversed(self.up), reversed(seen), reversed(lost), strict=True
        ):
            image = level(torch.cat([crop(beside, rim), crop(rise(image), self._guessed)], dim=1))
        logits: Tensor = self.head(image)
        return two_from_one(logits) if self.sigmoid else logits
