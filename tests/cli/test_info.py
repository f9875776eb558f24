"""What ``geounet info`` says of a model."""

from geounet.cli.info import model_card
from geounet.core.bandtypes import BandType
from geounet.core.legend import Legend
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from tests.making import OnePixel


def test_bands_that_are_no_quantities_are_said_to_be_so():
    bands = [
        BandInfo("red", 1000.0, 200.0, unit="reflectance × 10000"),
        BandInfo("landcover", type=BandType("categorical", codes=(10, 20, 80))),
        BandInfo("qa_pixel", type=BandType("bitmask", bits=(3, 4))),
        BandInfo("aspect", type=BandType("cyclic", period=360)),
    ]
    model = Segmenter(OnePixel(8, 2), bands, ModelInfo(Legend.of(["land", "water"]), "m", "made up"))
    lines = model_card(model).splitlines()
    start = lines.index("  bands       red, landcover, qa_pixel, aspect (reflectance × 10000)")
    assert lines[start + 1 : start + 4] == [
        "  landcover   categorical, codes 10, 20, 80",
        "  qa_pixel    bitmask, bits 3, 4",
        "  aspect      cyclic, period 360",
    ]
    assert not any(line.startswith("  red ") for line in lines)
