import pytest
import torch

from geounet.core.legend import Legend
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from geounet.nn.unet import UNet

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture
def make_segmenter():
    """Small segmenter whose logits differ from pixel to pixel, batch statistics included."""

    def make(bands=3, classes=4, *, mean=1000.0, std=200.0, seed=0, **options):
        torch.manual_seed(seed)
        network = UNet(bands, classes, **{"depth": 2, "width": 4, **options})
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.running_mean, std=0.3)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        names = [f"band {i}" for i in range(bands)]
        infos = [BandInfo(name, mean, std, 0.5, "counts", {"1": 600.0, "99": 1400.0}) for name in names]
        legend = Legend.of({10 * i: f"class {i}" for i in range(classes)})
        return Segmenter(network, infos, ModelInfo(legend, "test", "made up", 10.0, {"seed": seed}, "none")).eval()

    return make
