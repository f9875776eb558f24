import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.nn.encoders.making import SMALL, lived_in


@pytest.fixture(scope="module")
def learnt():
    """A network as timm gives it, of random weights that stand for learnt ones, reading red, green and blue."""
    torch.manual_seed(7)
    return lived_in(timm.create_model(SMALL, num_classes=0))


@pytest.fixture(scope="module")
def weights_file(learnt, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    save_file(learnt.state_dict(), path, metadata={"bands": json.dumps(["red", "green", "blue"])})
    return path
