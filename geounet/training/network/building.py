"""What learns: the network, its loss and its augmentation, from the sections of a config and what the data are like."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...core.bands import WAVELENGTHS
from ...core.bandtypes import BandType
from ...core.legend import Legend
from ...core.stats import ClassCounts
from ...nn.augment import (
    Affine,
    Augment,
    BandDropout,
    Compose,
    CutMix,
    Elastic,
    FlipsAndTurns,
    Motion,
    Radiometric,
    Tone,
    Warp,
)
from ...nn.encoders import EncoderUNet, channel_names
from ...nn.features import Features
from ...nn.initial import initialise, set_prior
from ...nn.losses import WeightedSum
from ...nn.segmenter import BandInfo, ModelInfo, Segmenter
from ...nn.unet import UNet
from ...nn.unetpp import UNetPlusPlus
from ...raster.sampler import Survey
from ..epochs.task import Task
from ..options import Augmentation, Card, Fitting, Loss, Network, Normalisation, Sampling
from ..source.batches import Batches
from ..source.data import Source
from .scaling import normalised_by, own_scale

PERCENTILES = ("0.1", "1", "5", "25", "50", "75", "95", "99", "99.9")
"""Of each band, kept in the model file: what values the model has seen."""
FADE = 0.08
"""Floor of normalised differences, as a part of the bands' mean: for reflectance some 0.01."""


def met(counts: ClassCounts, batches: Batches) -> ClassCounts:
    """Class pixels as the loss meets them: in the shares in which chips are drawn, not those of the ground.

    Weights from the ground would correct once more what the sampler has corrected already.
    """
    if batches.shares is None:
        return counts
    return ClassCounts(np.rint(batches.shares * counts.counts.sum()).astype(np.int64), counts.ignored)


def learner(
    source: Source,
    seen: Survey,
    batches: Batches,
    *,
    sampler: Sampling,
    model: Network,
    loss: Loss,
    augment: Augmentation,
    training: Fitting,
    card: Card,
) -> Task:
    """All that learns, before its first step; torch's chance draws the first weights."""
    counts = met(seen.counts, batches)
    weights = counts.weights(loss.class_weights)
    segmenter = untrained(source, seen, prior(counts, weights), model, card)
    return Task(
        segmenter, criterion(loss, source.legend, weights.tolist()), augmenter(augment, segmenter, seen, model.rule),
        training, sampler.seed, encoder_lr_factor=model.encoder_lr_factor,
    )  # fmt: skip


def untrained(source: Source, seen: Survey, prior: Sequence[float], model: Network, card: Card) -> Segmenter:
    """Network of random weights that knows its bands, and how frequent the classes are."""
    bands = bands_of(source, seen, model, card)
    features = features_of(model, bands, seen)
    network = network_of(model, bands, features, len(source.legend))
    set_prior(network, prior)
    return Segmenter(network, bands, ModelInfo(source.legend), features)


def network_of(model: Network, bands: Sequence[BandInfo], features: Features, classes: int) -> nn.Module:
    """Network of first weights, random or pretrained."""
    types = [band.type for band in bands]
    channels = features.channels(types)
    shared: dict[str, Any] = {
        "norm": model.norm, "upsample": model.upsample, "dropout": model.dropout, "sigmoid": model.sigmoid
    }  # fmt: skip
    if model.encoder_name is not None:
        names = channel_names([band.name for band in bands], types, features)
        encoder = EncoderUNet(
            channels, classes, encoder_name=model.encoder_name, encoder_weights=model.encoder_weights, bands=names,
            encoder_depth=model.encoder_depth, decoder_channels=model.decoder_channels, **shared,
        )  # fmt: skip
        if model.freeze_encoder:
            encoder.freeze_encoder()
        return encoder
    plain: dict[str, Any] = {**model.levels, "max_width": model.max_width, "residual": model.residual}
    network: nn.Module
    if model.architecture == "unet++":
        network = UNetPlusPlus(channels, classes, **plain, **shared, deep_supervision=model.deep_supervision)
    else:
        network = UNet(channels, classes, **plain, **shared, convolutions=model.convolutions)
    if model.initialisation != "he":  # as networks are made
        initialise(network, model.initialisation)
    return network


def bands_of(source: Source, seen: Survey, model: Network, card: Card) -> list[BandInfo]:
    """What the model file says of each band; codes and bits that nobody named are those seen.

    What bands are shifted and scaled by are their `mean` and `std`, by whatever rule.
    """
    kinds = [source.types.get(name, BandType()) for name in source.bands]
    shift, scale = normalised_by(seen.stats, model.rule, [not kind.typed for kind in kinds])
    quantiles = seen.stats.quantiles([float(p) / 100 for p in PERCENTILES])
    bands = []
    for name, kind, mean, std, values in zip(source.bands, kinds, shift, scale, quantiles, strict=True):
        if kind.typed:
            kind = kind.with_codes(seen.values.get(name, ()), f"band {name}")
            bands.append(BandInfo(name, type=kind))
            continue
        percentiles = dict(zip(PERCENTILES, values.tolist(), strict=True))
        bands.append(BandInfo(name, float(mean), float(std), WAVELENGTHS.get(name), card.unit, percentiles))
    return bands


def features_of(model: Network, bands: Sequence[BandInfo], seen: Survey) -> Features:
    """Channels that the network is to see; the floor of the differences follows the mean of continuous bands."""
    centre, _ = own_scale(seen.stats, model.rule)
    amounts = [abs(float(mean)) for band, mean in zip(bands, centre, strict=True) if not band.type.typed]
    floor = FADE * float(np.mean(amounts)) if model.differences and amounts else 0.0
    return Features(model.differences, floor)


def prior(met: ClassCounts, weights: NDArray[np.float64]) -> list[float]:
    """Class frequencies as the weighted loss meets them; a class without pixels counts one."""
    mass = np.maximum(met.counts, 1) * np.where(weights > 0, weights, 1.0)
    return [float(v) for v in mass / mass.sum()]


def criterion(options: Loss, legend: Legend, class_weights: Sequence[float]) -> WeightedSum:
    """Loss of a config, for the classes of a legend."""
    shape = {name: getattr(options, name) for name in ("gamma", "alpha", "beta", "per", "w0", "sigma")}
    return WeightedSum(
        options.terms, class_weights=class_weights, ignore_index=legend.ignore_index,
        label_smoothing=options.label_smoothing, **shape,
    )  # fmt: skip


def augmenter(options: Augmentation, model: Segmenter, seen: Survey, rule: Normalisation) -> Augment:
    """What a batch goes through: places first, then light, then what is withheld or mixed."""
    types = [band.type for band in model.bands]
    mean, spread = (values.tolist() for values in own_scale(seen.stats, rule))  # each band's own, whatever scales it
    ignore = model.legend.ignore_index
    steps: list[Augment] = [FlipsAndTurns()] if options.flips_and_turns else []
    motions: list[Motion] = []
    affine = {name: getattr(options, name) for name in ("scale", "rotation", "translation", "shear")}
    if any(affine.values()):
        motions.append(Affine(**affine))
    if options.elastic:
        motions.append(Elastic(options.elastic, options.elastic_sigma))
    if motions and options.warp_share:
        steps.append(Warp(motions, share=options.warp_share, types=types, ignore_index=ignore))
    light = {name: getattr(options, name) for name in ("gain", "band_gain", "offset", "band_offset", "noise")}
    if any(light.values()):
        steps.append(Radiometric(spread, types=types, **light))
    tone = {name: getattr(options, name) for name in ("brightness", "contrast", "gamma")}
    if any(tone.values()):
        low, high = ([band.percentiles.get(key, math.nan) for band in model.bands] for key in ("1", "99"))
        steps.append(Tone(mean, spread, low=low, high=high, types=types, **tone))
    if options.band_dropout:
        steps.append(BandDropout(options.band_dropout, ignore_index=ignore))
    if options.cutmix:
        steps.append(CutMix(options.cutmix))
    return Compose(steps)
