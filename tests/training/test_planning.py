"""A plan is arithmetic on a fingerprint: what it chooses fits the scenes, the objects, the labels and the memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geounet.core.cells import Cells, count_cells
from geounet.errors import ConfigError
from geounet.nn.encoders import EncoderUNet
from geounet.nn.unet import UNet
from geounet.nn.unetpp import UNetPlusPlus
from geounet.training import Fitting, Network, Sampling
from geounet.training.plan.fingerprint import Fingerprint, object_side
from geounet.training.plan.footprint import StepMemory, step_memory
from geounet.training.plan.planning import COARSEST, DEEPEST, FEWEST_STEPS, plan

GB = 10**9
FACTS = Fingerprint(
    shapes=((1024, 1024),) * 10, class_pixels={"land": 8_000_000, "water": 2_000_000}, labelled_share=1.0, valid_share=1.0,
    tails={"red": 1.1, "nir": 1.0}, object_side=40.0, pixel_size=10.0, device="cpu", memory=16 * GB,
)  # fmt: skip
OPEN = (
    Sampling(chip_size="auto", chips_per_epoch="auto"),
    Network(depth="auto", width="auto", normalisation="auto"),
    Fitting(batch_size="auto", learning_rate="auto"),
)


def cost(_, side):
    """100 MB for weights and 1 kB a pixel."""
    return StepMemory(10**8, 1000 * side**2)


def chosen(facts, sections=OPEN, cost=cost):
    """Value and reason of each choice."""
    return {choice.what: (choice.value, choice.why) for choice in plan(facts, *sections, cost).choices}


def test_of_clear_scenes_on_a_cpu_each_number_is_as_worked_out():
    found = {what: value for what, (value, _) in chosen(FACTS).items()}
    assert found == {
        "sampler.chip_size": 64,  # holds patches of 40 pixels
        "sampler.chips_per_epoch": 2560,  # 16 × 16 tiles of ten scenes
        "model.depth": 2,  # sees 44 pixels, depth 1 sees 18
        "model.width": 16,
        "model.normalisation": "standardise",
        "training.batch_size": 16,
    }


@pytest.mark.parametrize(
    ("change", "what", "value", "reason"),
    [
        pytest.param({"object_side": 90.0}, "sampler.chip_size", 128, "patches are some 90 pixels", id="wide patches"),
        pytest.param({"object_side": 90.0}, "model.depth", 3, "sees 100 pixels", id="wide patches are seen whole"),
        pytest.param({"object_side": 900.0}, "model.depth", 4, "4 is the most", id="patches wider than any"),
        pytest.param({"shapes": ((48, 90),) * 3}, "sampler.chip_size", 32, "48 pixels wide", id="small scenes"),
        pytest.param({"shapes": ((22, 30),) * 3}, "sampler.chip_size", 20, "multiples of 4", id="smaller ones"),
        pytest.param({"shapes": ((22, 30),) * 3}, "model.depth", 2, "sees 44", id="20 pixels halved twice are 5"),
        pytest.param({"shapes": ((10, 10),)}, "model.depth", 1, "less than 4 pixels", id="8 pixels are halved once"),
        pytest.param({"shapes": ((64, 64),)}, "sampler.chips_per_epoch", 320, "1 tile", id="few chips"),
        pytest.param({"shapes": ((9999, 9999),)}, "sampler.chips_per_epoch", 4096, "short enough", id="many chips"),
        pytest.param({"labelled_share": 0.5}, "sampler.chips_per_epoch", 1280, "tile the labelled", id="half labelled"),
        pytest.param({"labelled_share": 0.01}, "sampler.chip_size", 64, "1.0% of the ground", id="sparse labels"),
        pytest.param({"tails": {"red": 1.0, "nir": 2.7}}, "model.normalisation", "robust", "of nir 2.7 times", id="cloud"),
        pytest.param({"device": "cuda"}, "sampler.chip_size", 128, "", id="a GPU likes larger chips"),
        pytest.param({"device": "cuda"}, "model.width", 32, "a GPU", id="and wider networks"),
        pytest.param({"memory": 300_000_000}, "training.batch_size", 8, "of 300 MB", id="12 samples fit, 8 are taken"),
        pytest.param({"shapes": (), "object_side": None}, "sampler.chip_size", 128, "ready-made", id="no scenes"),
    ],
)  # fmt: skip
def test_each_rule_says_what_it_rests_on(change, what, value, reason):
    found, why = chosen(replace(FACTS, **change))[what]
    assert found == value
    assert reason in why


def test_what_the_config_states_stays_and_is_said_to_be_its():
    sections = (
        Sampling(chip_size=96, chips_per_epoch=10),
        Network(depth=5, width=7, normalisation="none"),
        Fitting(batch_size=3),
    )
    made = plan(FACTS, *sections, cost)
    assert (made.sampler, made.model, made.training) == sections
    assert all(choice.why.startswith("as the config says") for choice in made.choices)


def test_a_network_with_an_encoder_is_given_neither_depth_nor_width():
    made = plan(FACTS, OPEN[0], Network(encoder_name="resnet18"), OPEN[2], cost)
    assert made.model == Network(encoder_name="resnet18")
    assert not {"model.depth", "model.width"} & {choice.what for choice in made.choices}


def test_chips_are_halved_until_one_fits_and_what_never_does_is_refused():
    wide = replace(FACTS, object_side=100.0)
    made = chosen(replace(wide, memory=22 * 10**7))  # half of it holds 10 MB beside the weights: 64² kB, not 128² kB
    assert made["sampler.chip_size"][0] == 64
    assert "fits into half of the 220 MB" in made["sampler.chip_size"][1]
    with pytest.raises(
        ConfigError, match=r"one chip of 32 pixels takes 101 MB, and 150 MB are free.*smaller model.width"
    ):
        plan(replace(wide, memory=150_000_000), *OPEN, cost)


@given(
    shapes=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=8),
    labelled=st.floats(1e-6, 1), patch=st.one_of(st.none(), st.floats(1, 5000)), device=st.sampled_from(["cpu", "cuda", "mps"]),
    memory=st.integers(GB, 200 * GB), tails=st.dictionaries(st.sampled_from("abc"), st.floats(0.1, 50)),
)  # fmt: skip
@settings(max_examples=200)
def test_whatever_the_data_a_plan_can_be_carried_out(shapes, labelled, patch, device, memory, tails):
    facts = replace(
        FACTS,
        shapes=tuple(shapes),
        labelled_share=labelled,
        object_side=patch,
        device=device,
        memory=memory,
        tails=tails,
    )
    made = plan(facts, *OPEN, cost)
    side, batch = made.sampler.chip_size, made.training.batch_size
    assert 1 <= side <= np.median([min(shape) for shape in shapes])
    assert 1 <= made.model.depth <= DEEPEST
    assert made.model.depth == 1 or side >> made.model.depth >= COARSEST
    assert 1 <= batch <= made.largest_batch
    assert cost(made.model, side).of(batch) <= memory / 2
    assert batch == 1 or made.sampler.chips_per_epoch / batch >= FEWEST_STEPS
    assert "auto" not in {*vars(made.sampler).values(), made.model.normalisation, batch}
    assert plan(facts, *OPEN, cost) == made


def squares(side, size):
    """Cells of a scene of 120 pixels in which squares of class 1 stand twice their side apart on class 0."""
    place = np.arange(120) // side % 2 == 1
    ids = (place[:, None] & place).astype(np.uint8)
    return Cells.of(ids.shape, size, count_cells(ids, np.ones(ids.shape, bool), 2, size))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_patches_are_as_wide_as_the_runs_of_the_class_of_the_longest(size):
    """Half the lines are all of class 0, 120 pixels long; the others are 5 runs of 12 of each class: 60 / 5 and (120 + 60) / 6."""
    cells = squares(12, size)
    assert object_side([cells], 2) == pytest.approx((120 + 60) / (1 + 5))
    only = Cells.of((12, 12), 1, np.eye(3, dtype=np.int64)[np.full((12, 12), 1)])
    assert object_side([only], 2) == 12
    assert object_side([Cells.of((4, 4), 1, np.zeros((4, 4, 3), np.int64))], 2) is None
    assert object_side([], 2) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: UNet(4, 3, depth=2, width=8),
        lambda: UNet(4, 3, depth=3, width=8, norm="group", upsample="bilinear", residual=True),
        lambda: UNetPlusPlus(4, 3, depth=2, width=8),
        lambda: EncoderUNet(4, 3, encoder_name="resnet18", encoder_depth=3),
    ],
    ids=["plain", "residual", "nested", "encoder"],
)
def test_what_a_step_takes_is_what_autograd_keeps(make):
    """The same count on tensors with values, times what is alive beside them; a network without values costs no memory."""
    side, batch = 32, 4
    torch.manual_seed(0)
    network, kept = make().train(), {}

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        getattr(network, "supervised", lambda image: [network(image)])(torch.zeros(batch, 4, side, side))
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / batch
    with torch.device("meta"):
        empty = make()
    memory = step_memory(empty, 4, 3, side)
    assert measured < memory.sample < 3 * measured
    assert memory.fixed == 16 * sum(parameter.numel() for parameter in network.parameters())
    assert memory.fits(memory.of(7)) == 7
    assert memory.fits(memory.of(7) - 1) == 6
    assert memory.fits(0) == 0
