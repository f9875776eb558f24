"""A U-Net whose way down is a network of timm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.bands import canonical
from ...errors import ConfigError
from ..blocks import WIDEST, Norm, Upsample, check, two_from_one
from ..extent import pad_to
from .backbone import features, maps_of, stem_of
from .decoder import Decoder
from .stem import Share, adapted, names_or_numbers, shares
from .weights import pretrained

SHALLOWEST, DEEPEST = 3, 5
"""Halvings: fewer than 3 would use next to nothing of what was learnt, and timm's encoders have no more than 5."""
FINEST = 16
"""Channels of the decoder's finest level where `decoder_channels` does not say; they double with each level below."""


class EncoderUNet(nn.Module):
    """U-Net [1]_ whose way down is a classification network of timm [2]_, with random or pretrained weights.

    The encoder gives maps of the image, each half as wide and high as the one before. The decoder starts from the
    last; at each level it doubles the map, lays the encoder's map of that size beside it (the image itself, at full
    size where the encoder has none) and convolves twice (3 × 3, normalisation, ReLU).

    Parameters
    ----------
    in_channels, classes : int
        Channels C that come in, classes K that go out.
    encoder_name : str
        A network of timm that halves the image step by step: ``resnet18``, ``resnet34``, ``resnet50``, ``vgg16``,
        ``efficientnet_b0``, ``convnext_tiny`` and some hundreds more. A tag chooses among timm's weights
        (``resnet50.a1_in1k``).
    encoder_weights : str or path, optional
        First weights of the encoder; by default random ones.

        * ``imagenet``: timm's for that name, of photographs (red, green, blue);
        * one of torchgeo's, such as ``ResNet50_Weights.SENTINEL2_ALL_MOCO``, which say their bands;
        * a ``.safetensors`` file with timm's names of tensors, whose metadata may say ``bands`` (a JSON list of names);
          or a model file of geounet with the same encoder.

        What is not on this machine is fetched once, by timm's and torch's own means, into their caches.
    bands : sequence of str, optional
        Name of each channel, by which the weights' bands are met; see `shares` for what happens to those that are not
        among them, and `channel_names` for the names of codes, bits and differences.
    encoder_depth : int
        Halvings of the image, 3 to 5.
    decoder_channels : sequence of int, optional
        Channels of each level on the way up, from the coarsest; by default 256, 128, 64, 32, 16.
    norm, upsample, dropout, sigmoid
        As in `UNet`, the first two of the decoder alone; dropout is on the encoder's last map.
    origin : mapping, optional
        Where the encoder's first weights came from, as plain values, if this network is one that is read from a file.
        It is for people; nothing is fetched by it.

    Attributes
    ----------
    arguments : dict
        What the network was made with, as plain values for JSON. ``EncoderUNet(**arguments)`` has the same layers,
        with random weights: in place of `encoder_weights` there is `origin`.
    origin : dict or None
        ``weights`` (as asked), ``source`` (address or repository), and ``stem``: the list of (band, source, weight) by
        which the first layer was made, and where known ``licence`` or ``publication``, and the ``mean`` and ``std``
        by which images were standardised in the pretraining.
    stride : int
        ``2**encoder_depth`` pixels; images are padded to multiples of it and the logits cropped back, as in `UNet`.
    head : torch.nn.Conv2d
        Last layer, 1 × 1, whose bias `set_prior` sets.

    Raises
    ------
    ConfigError
        An argument is of the wrong type or out of range, there are not as many bands as channels, or the encoder or
        its weights are not to be had.
    ModelFileError
        A file of weights cannot be read, or is another encoder's.

    Notes
    -----
    The network here is given standardised bands. Weights that were trained on values divided by one number (torchgeo's
    of Sentinel-2 are on reflectance) meet larger ones at first; the running statistics of batch normalisation follow
    within some hundred steps, also when the encoder's weights are frozen.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation,
       MICCAI 2015, arXiv:1505.04597.
    .. [2] R. Wightman, PyTorch image models, 2019, doi:10.5281/zenodo.4414861.

    Examples
    --------
    >>> network = EncoderUNet(4, 9, encoder_name="resnet18", encoder_depth=3)
    >>> network(torch.zeros(1, 4, 50, 70)).shape
    torch.Size([1, 9, 50, 70])
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder_name: str = "resnet18",
        encoder_weights: str | Path | None = None,
        bands: Sequence[str] | None = None,
        encoder_depth: int = DEEPEST,
        decoder_channels: Sequence[int] | None = None,
        norm: Norm = "batch",
        upsample: Upsample = "transposed",
        dropout: float = 0.0,
        sigmoid: bool = False,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_depth(encoder_depth)
        widths = _widths(decoder_channels, encoder_depth)
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels, "classes": classes, "encoder_name": encoder_name,
            "bands": None if bands is None else list(bands), "encoder_depth": encoder_depth,
            "decoder_channels": widths, "norm": norm, "upsample": upsample, "dropout": dropout, "sigmoid": sigmoid,
        }  # fmt: skip
        check(self.arguments | {"depth": encoder_depth, "width": widths[0], "max_width": None})
        _check_bands(bands, in_channels)
        self.in_channels, self.sigmoid = in_channels, sigmoid
        self.stride = 2**encoder_depth
        self.encoder = features(encoder_name, in_channels, encoder_depth)
        self.stem, _ = stem_of(self.encoder, in_channels)
        seen = maps_of(self.encoder)
        self.dropout = nn.Dropout2d(dropout)
        self.decoder = Decoder({1: in_channels} | seen, widths, norm, upsample)
        self.head = nn.Conv2d(widths[-1], 1 if sigmoid else classes, kernel_size=1)
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="linear")
        nn.init.constant_(self.head.bias, 0.0)  # type: ignore[arg-type]
        self._own_finest = 1 in seen
        self.origin = None if origin is None else dict(origin)
        if encoder_weights is not None:
            self.origin = self._take(encoder_weights, encoder_name, encoder_depth, bands)
        self.arguments |= {"dropout": float(dropout), "origin": self.origin}

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

        Raises
        ------
        ConfigError
            The image has another number of channels.
        """
        # Sizes are symbols in a trace, and a branch on them would be frozen into the graph.
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return self._logits(image)
        if image.shape[1] != self.in_channels:
            raise ConfigError(f"the network reads {self.in_channels} channels; the image has {image.shape[1]}.")
        height, width = image.shape[-2:]
        return self._logits(pad_to(image, self.stride))[..., :height, :width]

    def _logits(self, image: Tensor) -> Tensor:
        maps = list(self.encoder(image))
        maps[-1] = self.dropout(maps[-1])
        if not self._own_finest:
            maps.insert(0, image)
        logits: Tensor = self.head(self.decoder(maps))
        return two_from_one(logits) if self.sigmoid else logits

    @property
    def stem_shares(self) -> tuple[Share, ...]:
        """By which parts of which kernels the first layer was made; empty for random weights."""
        return tuple(Share(*row) for row in (self.origin or {}).get("stem", ()))

    def freeze_encoder(self) -> None:
        """Keep the encoder's weights as they are, all but the first layer where that was made for other bands.

        The running statistics of batch normalisation go on following the data [1]_: bands, units and ground are seldom
        those of the pretraining.

        References
        ----------
        .. [1] Y. Li et al., Revisiting batch normalization for practical domain adaptation, arXiv:1603.04779.
        """
        self.encoder.requires_grad_(False)
        if any(share.source != share.band or share.weight != 1 for share in self.stem_shares):
            self.encoder.get_submodule(self.stem).requires_grad_(True)

    def unfreeze_encoder(self) -> None:
        """Let the whole encoder learn again."""
        self.encoder.requires_grad_(True)

    def _take(self, name: str | Path, encoder_name: str, depth: int, bands: Sequence[str] | None) -> dict[str, Any]:
        """Set the encoder's weights, its first layer made for the bands here, and say where they come from."""
        _, first = stem_of(self.encoder, self.in_channels)
        if first.weight.is_meta:  # as when a model file is read: what it holds is complete, and nothing is fetched
            raise ConfigError("encoder_weights are for new networks; a network in a file has its weights there.")
        given = pretrained(name, encoder_name, depth)
        key = f"{self.stem}.weight"
        kernels = given.state[key]
        if given.bands is not None and len(given.bands) != kernels.shape[1]:
            raise ConfigError(
                f"{name} names {len(given.bands)} bands, but its first layer reads {kernels.shape[1]} channels."
            )
        plan = shares(bands, given.bands, channels=self.in_channels, kernels=kernels.shape[1])
        here, there = names_or_numbers(bands, self.in_channels), names_or_numbers(given.bands, kernels.shape[1])
        try:
            self.encoder.load_state_dict(dict(given.state) | {key: adapted(kernels, plan, here, there)})
        except RuntimeError as error:
            raise ConfigError(
                f"more than the first layer of {encoder_name} reads the image, so its weights cannot be made for other bands."
            ) from error
        return dict(given.origin) | {"stem": [list(share) for share in plan]}


def parameter_groups(
    network: nn.Module, learning_rate: float, weight_decay: float, encoder_lr_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Parameters for an optimizer: what is pretrained learns slower than what is new, biases and norms do not decay.

    Parameters
    ----------
    network : Module
        An `EncoderUNet`, or a module that holds one; any other network is new as a whole.
    learning_rate, weight_decay : float
        Of weights that are new.
    encoder_lr_factor : float
        Factor of the learning rate for the encoder, 0 to 1; some tenth keeps what it has learnt [1]_.

    Returns
    -------
    list of dict
        Groups with ``params``, ``lr`` and ``weight_decay``, none empty; frozen parameters are left out.

    Raises
    ------
    ConfigError
        The factor is out of range.

    References
    ----------
    .. [1] J. Howard, S. Ruder, Universal language model fine-tuning for text classification, ACL 2018,
       arXiv:1801.06146, section 3.2.
    """
    if isinstance(encoder_lr_factor, bool) or not 0 <= encoder_lr_factor <= 1:
        raise ConfigError(f"encoder_lr_factor is a number from 0 to 1, not {encoder_lr_factor!r}.")
    borrowed = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, EncoderUNet) and module.origin is not None
        for parameter in module.encoder.parameters()
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in borrowed, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * (encoder_lr_factor if old else 1.0),
            "weight_decay": weight_decay if matrix else 0.0,
        }
        for (old, matrix), parameters in groups.items()
    ]


def _check_depth(depth: object) -> None:
    if isinstance(depth, bool) or not isinstance(depth, int) or not SHALLOWEST <= depth <= DEEPEST:
        raise ConfigError(f"encoder_depth is a whole number from {SHALLOWEST} to {DEEPEST}, not {depth!r}.")


def _widths(decoder_channels: Sequence[int] | None, depth: int) -> list[int]:
    if decoder_channels is None:
        return [FINEST * 2**level for level in reversed(range(depth))]
    if isinstance(decoder_channels, str) or not isinstance(decoder_channels, Sequence):
        raise ConfigError(f"decoder_channels is a list of numbers, not {decoder_channels!r}.")
    widths = list(decoder_channels)
    if len(widths) != depth:
        raise ConfigError(f"decoder_channels has {len(widths)} numbers; a network of {depth} halvings needs {depth}.")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= WIDEST:
            raise ConfigError(f"decoder_channels are whole numbers from 1 to {WIDEST}, not {width!r}.")
    return widths


def _check_bands(bands: Sequence[str] | None, in_channels: int) -> None:
    if bands is None:
        return
    if isinstance(bands, str) or not all(isinstance(band, str) for band in bands):
        raise ConfigError(f"bands is a list of names, not {bands!r}.")
    if len(bands) != in_channels:
        raise ConfigError(
            f"{len(bands)} bands are named ({', '.join(bands)}), but the network has {in_channels} channels: name each."
        )
    names = canonical(bands)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"each band is named once, but {', '.join(twice)} is given more than once.")
