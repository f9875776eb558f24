"""torchgeo's data sets and data modules are trained on by name; names are torchgeo's own, and nothing else is run."""

import json

import numpy as np
import pytest
from affine import Affine
from numpy.testing import assert_allclose
from PIL import Image
from rasterio.crs import CRS

from geounet.config import load_config
from geounet.errors import ConfigError, GeoUNetError
from geounet.training import Fitting, Network, Sampling, planned, train
from geounet.training.source.torchgeo import TorchgeoOptions, TorchgeoSource
from tests.making import write_raster

pytest.importorskip("torchgeo", reason="torchgeo is an extra of its own")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torchgeo's own dependencies
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),  # rasterio with affine 3
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
]

RGB = ("red", "green", "blue")
CLASSES = {0: "background", 1: "building", 2: "woodland", 3: "water", 4: "road"}


def chip(rng, side=64):
    """A picture whose classes are told by their colours, and its mask."""
    mask = rng.integers(0, 5, (side // 16, side // 16)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
    colours = np.array([[20, 20, 20], [220, 40, 40], [40, 200, 40], [40, 40, 220], [200, 200, 200]])
    image = (colours[mask] + rng.normal(0, 5, (side, side, 3))).clip(0, 255).astype(np.uint8)
    return image.transpose(2, 0, 1), mask


def save(path, pixels, **profile):
    """A picture without a place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)).save(path, **profile)
    return path


def write(path, pixels, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_raster(path, pixels, **profile)


@pytest.fixture(scope="module")
def landcover(tmp_path_factory):
    """The layout of LandCover.ai: chips in a folder, splits in text files."""
    root = tmp_path_factory.mktemp("landcoverai")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 3)):
        names = [f"{split}_{number}" for number in range(count)]
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image, mask = chip(rng)
            save(root / "output" / f"{name}.jpg", image, quality=100)
            save(root / "output" / f"{name}_m.png", mask)
    return root


@pytest.fixture(scope="module")
def landsat(tmp_path_factory):
    """A Landsat 8 scene, a file a band, and the Cropland Data Layer of its year."""
    folder = tmp_path_factory.mktemp("landsat")
    rng = np.random.default_rng(1)
    image, mask = chip(rng, 384)
    place = {"crs": CRS.from_epsg(32613), "transform": Affine(30, 0, 500_000, 0, -30, 4_500_000)}
    for number, band in enumerate(image, start=2):
        name = f"LC08_L2SP_030032_20230715_20230720_02_T1_SR_B{number}.TIF"
        write(folder / "images" / name, band.astype(np.uint16) * 100, **place)
    codes = np.array([0, 1, 5, 111, 121], np.uint8)[mask]
    write(folder / "crops" / "2023_30m_cdls.tif", codes, **place)
    return folder


def options(root, **more):
    return TorchgeoOptions(legend=CLASSES, bands=RGB, **{"args": {"root": str(root)}} | more)


TINY = {"model": Network(depth=1, width=8), "training": Fitting(epochs=16, batch_size=2, learning_rate=3e-2)}


@pytest.mark.parametrize("what", [{"dataset": "LandCoverAI"}, {"datamodule": "LandCoverAIDataModule"}])
def test_a_data_set_and_its_data_module_are_learnt_by_name(landcover, tmp_path, what):
    sampler = Sampling(seed=1)
    run = train(TorchgeoSource(options(landcover, **what), sampler), tmp_path / "run", sampler=sampler, **TINY)
    assert run.validation.miou > 0.8
    assert run.test.report()["pixels"] == 3 * 64 * 64
    assert run.model.band_names == RGB
    origin = run.model.info.provenance
    assert origin["split"] == {"train": {"chips": 12}, "validate": {"chips": 4}, "test": {"chips": 3}}
    assert origin["torchgeo"]["version"].startswith("0.")
    assert json.loads((run.folder / "metrics_test.json").read_text())["classes"].keys() == set(CLASSES.values())


def test_a_plan_knows_how_many_samples_the_data_set_has(landcover):
    source = TorchgeoSource(options(landcover, dataset="LandCoverAI"), Sampling())
    left_open = Sampling(chips_per_epoch="auto"), Network(depth=1, width=4), Fitting(batch_size="auto")
    chosen = planned(source, *left_open)
    assert chosen.sampler.chips_per_epoch is None  # 12, whatever a plan says
    assert chosen.training.batch_size == 1
    assert "12 steps of an epoch of 12 chips" in chosen.choices[-1].why


def test_the_survey_counts_what_the_samples_hold(landcover):
    source = TorchgeoSource(options(landcover, dataset="LandCoverAI"), Sampling())
    seen = source.survey(Sampling())
    images, masks = [], []
    for name in (landcover / "train.txt").read_text().split():
        images.append(np.asarray(Image.open(landcover / "output" / f"{name}.jpg")).transpose(2, 0, 1))
        masks.append(np.asarray(Image.open(landcover / "output" / f"{name}_m.png")))
    assert_allclose(seen.stats.mean, np.stack(images, axis=1).reshape(3, -1).mean(axis=1))
    assert seen.counts.counts.tolist() == np.bincount(np.stack(masks).ravel(), minlength=5).tolist()


def test_images_and_a_map_of_classes_are_joined_and_cut_by_cells_of_ground(landsat, tmp_path):
    asked = TorchgeoOptions(
        dataset=("Landsat8", "CDL"), bands=("blue", "green", "red"), ignore=(4,),
        args=({"paths": str(landsat / "images"), "bands": ["SR_B2", "SR_B3", "SR_B4"]},
              {"paths": str(landsat / "crops"), "years": [2023], "classes": [0, 1, 5, 111, 121]}),
        legend={0: "other", 1: "corn", 2: "soy", 3: "water"}, shares={"train": 0.7, "validate": 0.3},
    )  # fmt: skip
    sampler = Sampling(chip_size=32, chips_per_epoch=24, seed=2)
    source = TorchgeoSource(asked, sampler)
    assert source.splits == ("train", "validate")
    short = Fitting(epochs=3, batch_size=4, learning_rate=3e-2)
    run = train(source, tmp_path / "run", sampler=sampler, **TINY | {"training": short})
    assert run.test is None
    assert run.validation.confusion.ignored > 0
    assert run.history[-1]["loss"] < run.history[0]["loss"]


def test_a_geographic_data_set_with_masks_of_its_own_is_cut_at_random_places(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(2):
        image, mask = chip(rng, 256)
        place = {"crs": CRS.from_epsg(2180), "transform": Affine(0.5, 0, 5e5 + 128 * number, 0, -0.5, 4e5)}
        write(tmp_path / "images" / f"{number}.tif", image, **place)
        write(tmp_path / "masks" / f"{number}.tif", mask, **place)
    sampler = Sampling(chip_size=32, chips_per_epoch=16, seed=2)
    source = TorchgeoSource(options(tmp_path, dataset="LandCoverAIGeo", splits={"train": {}, "validate": {}}), sampler)
    batch = next(iter(source.batches(source.survey(sampler), sampler, 4)))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["mask"].shape == (4, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "LandCoverAi"}, r"no class LandCoverAi; near it are .*LandCoverAI"),
        ({"dataset": "os"}, r"torchgeo\.datasets has no class os"),
        ({"dataset": "download_url"}, r"has no class download_url"),
        ({"dataset": "EuroSAT"}, r"EuroSAT refuses its arguments: Dataset not found"),
        (
            {"dataset": "LandCoverAI", "args": {"rot": "."}},
            r"refuses its arguments: .*unexpected keyword argument 'rot'",
        ),
        ({"dataset": "LandCoverAI", "bands": ("red", "green")}, r"shape \(.*\).* 2 bands are named: red, green"),
        (
            {"dataset": "LandCoverAI", "legend": {0: "a", 1: "b"}},
            r"LandCoverAI has the class code 2, 3, 4, which the legend does not know",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words(landcover, change, message, tmp_path):
    asked = {"legend": CLASSES, "bands": RGB, "args": {"root": str(landcover)}} | change
    with pytest.raises(GeoUNetError, match=message):
        train(TorchgeoSource(TorchgeoOptions(**asked), Sampling()), tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_a_config_names_torchgeo_in_place_of_scenes(landcover, tmp_path):
    path = tmp_path / "config.yaml"
    legend = ", ".join(f"{code}: {name}" for code, name in CLASSES.items())
    text = f"torchgeo: {{dataset: LandCoverAI, bands: [red, green, blue], legend: {{{legend}}}, args: {{root: {landcover}}}}}\n"
    path.write_text(text)
    source = load_config(path).source()
    assert isinstance(source, TorchgeoSource)
    path.write_text(text + "scenes: {train: a.tif}\nlabels: {legend: {0: a, 1: b}}\n")
    with pytest.raises(ConfigError, match="torchgeo gives images and labels already: leave out scenes and labels"):
        load_config(path)
