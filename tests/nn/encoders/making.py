"""Networks with an encoder of some 6 MB, and weights for it."""

import timm
import torch

from geounet.core.legend import Legend
from geounet.nn.encoders import EncoderUNet
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter

SMALL = "mobilenetv3_small_050"
BANDS = ("blue", "green", "red", "nir")


def small(in_channels=4, classes=3, **options):
    return EncoderUNet(in_channels, classes, **{"encoder_name": SMALL, "decoder_channels": [8] * 5} | options)


def lived_in(network):
    """Batch statistics that are not those of a new network."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def segmenter(network, bands=BANDS):
    infos = [BandInfo(band, 1000.0, 200.0) for band in bands]
    return Segmenter(network, infos, ModelInfo(Legend.of([f"class {i}" for i in range(3)]))).eval()


def timm_maps(learnt, image):
    """The maps of timm's own, all of the weights loaded by timm."""
    features = timm.create_model(SMALL, features_only=True).eval()
    state = learnt.state_dict()
    features.load_state_dict({name: state[name] for name in features.state_dict()})
    return features(image)
