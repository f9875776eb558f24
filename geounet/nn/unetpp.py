"""UNet++: U-Nets of every depth in one, that share their layers and can be cut back after training."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from .blocks import Norm, Upsample, channels_of, check, make_level, make_rise, two_from_one
from .extent import Extent, pad_to
from .initial import initialise


class UNetPlusPlus(nn.Module):
    """UNet++ [1]_: what a level saw is worked on, with what the levels below made of it, before it is laid beside.

    With X[l, 0] the levels on the way down, X[l, n] is a level of X[l, 0], …, X[l, n - 1] and the doubled
    X[l + 1, n - 1], laid side by side; X[0, n] is the answer of a U-Net of depth n, n = 1 … `depth`.

    Parameters
    ----------
    in_channels, classes, depth, width, norm, upsample, dropout, max_width, residual, sigmoid
        As of `UNet`; `dropout` is for the deepest level of the way down. The paper has depth 4 and width 32.
    deep_supervision : bool
        A head for the answer of every depth, each of which is to be trained (`supervised`), so that the network can be
        cut back (`prune`); otherwise for that of the deepest alone.

    Attributes
    ----------
    arguments : dict
        What the network was made with, as plain values for JSON; ``UNetPlusPlus(**arguments)`` has the same layers.
    stride, receptive_field, margin : int
        As of the `UNet` of its depth.
    heads : torch.nn.ModuleList
        Last layers, 1 × 1, shallowest first, whose biases `set_prior` sets.

    Raises
    ------
    ConfigError
        An argument is of the wrong type or out of range.

    Notes
    -----
    Images of any size are padded as by `UNet`; a traced network takes multiples of `stride`.

    References
    ----------
    .. [1] Z. Zhou et al., UNet++: a nested U-Net architecture for medical image segmentation, DLMIA 2018,
       arXiv:1807.10165.

    Examples
    --------
    >>> network = UNetPlusPlus(6, 9, depth=3, width=8)
    >>> [logits.shape for logits in network.supervised(torch.zeros(1, 6, 50, 70))]
    [torch.Size([1, 9, 50, 70]), torch.Size([1, 9, 50, 70]), torch.Size([1, 9, 50, 70])]
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        depth: int = 4,
        width: int = 32,
        norm: Norm = "batch",
        upsample: Upsample = "transposed",
        dropout: float = 0.0,
        max_width: int | None = None,
        residual: bool = False,
        sigmoid: bool = False,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels, "classes": classes, "depth": depth, "width": width, "norm": norm,
            "upsample": upsample, "dropout": dropout, "max_width": max_width, "residual": residual, "sigmoid": sigmoid,
            "deep_supervision": deep_supervision,
        }  # fmt: skip
        check(self.arguments)
        self.arguments["dropout"] = float(dropout)
        extent = Extent(depth, upsample == "bilinear")
        self.stride, self.receptive_field, self.margin = extent.stride, extent.receptive_field, extent.margin
        self.depth, self.sigmoid = depth, sigmoid

        widths = channels_of(depth, width, max_width)
        self.down = nn.ModuleList(
            make_level(before, after, norm, residual=residual)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.rise = nn.ModuleList(
            nn.ModuleList(make_rise(below, here, upsample) for _ in range(depth - place))
            for place, (here, below) in enumerate(pairwise(widths))
        )
        self.up = nn.ModuleList(
            nn.ModuleList(
                make_level((seen + 1) * here, here, norm, residual=residual) for seen in range(1, depth - place + 1)
            )
            for place, here in enumerate(widths[:-1])
        )
        heads = depth if deep_supervision else 1
        self.heads = nn.ModuleList(nn.Conv2d(widths[0], 1 if sigmoid else classes, kernel_size=1) for _ in range(heads))
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores of every pixel, from the deepest answer.

        Parameters
        ----------
        image : Tensor (N, C, H, W), float
            Standardised bands, finite.

        Returns
        -------
        Tensor (N, K, H, W), float
            Logits: before softmax.
        """
        return self._logits(image, self.heads[-1:])[-1]

    def supervised(self, image: Tensor) -> list[Tensor]:
        """Class scores of every pixel from each head, shallowest first; the loss in training is the mean of theirs.

        Parameters
        ----------
        image : Tensor (N, C, H, W), float
            Standardised bands, finite.

        Returns
        -------
        list of Tensor (N, K, H, W), float
            Logits, `depth` of them, or one without `deep_supervision`; the last are those of `forward`.
        """
        return self._logits(image, self.heads)

    def prune(self, depth: int) -> "UNetPlusPlus":
        """Return the network that ends in the answer of a depth, with copies of the weights that it takes.

        Parameters
        ----------
        depth : int
            From 1 to that of the network.

        Returns
        -------
        UNetPlusPlus
            Its logits are those of ``supervised(image)[depth - 1]``, for images whose sides are multiples of the
            deeper network's `stride`; others are padded less, which shows near the last row and column.

        Raises
        ------
        ConfigError
            There is no such answer, or it was not trained: the network has no `deep_supervision`.
        """
        if not self.arguments["deep_supervision"]:
            raise ConfigError(
                "a network without deep supervision has one answer, so it cannot be cut back; make it with deep_supervision."
            )
        if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= self.depth:
            raise ConfigError(f"this network can be cut back to a depth from 1 to {self.depth}, not {depth!r}.")
        with torch.device("meta"):
            network = type(self)(**self.arguments | {"depth": depth})
        weights = self.state_dict()
        network.load_state_dict({name: weights[name].clone() for name in network.state_dict()}, assign=True)
        return network.train(self.training)

    def _logits(self, image: Tensor, heads: nn.ModuleList) -> list[Tensor]:
        """Logits of the last answers, as many as there are heads."""
        height, width = image.shape[-2:]
        # Sizes are symbols in a trace, and a branch on them would be frozen into the graph.
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        answers = self._answers(image if tracing else pad_to(image, self.stride))[-len(heads) :]
        logits = [head(answer) for head, answer in zip(heads, answers, strict=True)]
        if not tracing:
            logits = [found[..., :height, :width] for found in logits]
        return [two_from_one(found) for found in logits] if self.sigmoid else logits

    def _answers(self, image: Tensor) -> list[Tensor]:
        """X[0, n] for n = 1 … `depth`, found one level of the way down after the other."""
        seen: list[list[Tensor]] = []  # X[l, 0], X[l, 1], …, as far as the levels below them are there
        for place, level in enumerate(self.down):
            image = level(functional.max_pool2d(image, 2) if place else image)
            seen.append([self.dropout(image) if place == self.depth else image])
            for here in reversed(range(place)):
                risen = self.rise[here][len(seen[here]) - 1](seen[here + 1][-1])  # type: ignore[index]
                beside = self.up[here][len(seen[here]) - 1]  # type: ignore[index]
                seen[here].append(beside(torch.cat([*seen[here], risen], dim=1)))
        return seen[0][1:]
