"""Each labelled pixel is validated once, by a model that has not seen it; the folds' models are kept as one."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from numpy.testing import assert_array_equal

import geounet
from geounet.cli import main
from geounet.config import load_config
from geounet.core.legend import Legend
from geounet.core.metrics import Confusion, mean_iou
from geounet.errors import ConfigError, OutputExistsError
from geounet.evaluation import Evaluation, evaluate
from geounet.nn.ensemble import Ensemble
from geounet.raster.labels import open_labels
from geounet.raster.sampler import Pair
from geounet.raster.scene import open_scene
from geounet.raster.splitting import split_pairs
from geounet.training import Card, Fitting, Inference, Network, Sampling, cross_validate, train
from geounet.training.folds import pooled, spread
from tests.making import BANDS, PLACE, reflectance, write_raster

LEGEND = Legend.of({10: "land", 80: "water"})
EXACT = {"device": "cpu", "backend": "torch", "precision": "fp32"}
TINY = {
    "sampler": Sampling(chip_size=16, chips_per_epoch=8, seed=5),
    "model": Network(depth=1, width=2),
    "training": Fitting(epochs=1, batch_size=8, learning_rate=1e-2, device="cpu"),
    "inference": Inference(chip_size=64, **EXACT),
    "card": Card(name="ponds", data="made up", licence="CC0"),
}
SIDE = 40


def labelled(folder, number, legend=LEGEND, **profile):
    """A scene where water is what is dark in the near infrared; its first rows have no data, its last no label."""
    pixels = reflectance((SIDE, SIDE), seed=number)
    truth = np.where(pixels[3] < 1500, 80, 10).astype(np.uint8)
    pixels[:, :3] = -9999
    truth[-2:] = 255
    place = PLACE.translation(number * SIDE, 0)
    scene = open_scene(
        write_raster(folder / f"{number}.tif", pixels, bands=BANDS, nodata=-9999, transform=PLACE @ place, **profile)
    )
    path = write_raster(folder / f"{number}_truth.tif", truth, nodata=255, transform=PLACE @ place, **profile)
    return Pair(scene, open_labels(path, scene.grid, legend), group=f"group {number % 3}")


def in_folds(pool, test, folds=3):
    return [split_pairs(pool, by="group", folds=folds, fold=fold) | {"test": test} for fold in range(folds)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return [labelled(folder, number) for number in range(6)]


@pytest.fixture(scope="module")
def test_pairs(tmp_path_factory):
    return [labelled(tmp_path_factory.mktemp("test"), 9)]


@pytest.fixture(scope="module")
def folds(pool, test_pairs):
    return in_folds(pool, test_pairs)


@pytest.fixture(scope="module")
def done(folds, tmp_path_factory):
    return cross_validate(folds, tmp_path_factory.mktemp("runs") / "ponds", **TINY)


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def nothing_is_read(monkeypatch):
    def fail(*_, **__):
        pytest.fail("the scenes are read already")

    monkeypatch.setattr("geounet.training.source.data.survey", fail)


def test_every_labelled_pixel_is_validated_once(done, pool):
    assert read(done.folder / "metrics.json")["pixels"] == 6 * SIDE * (SIDE - 5)
    assert done.validation.scenes.keys() == {pair.scene.source for pair in pool}
    assert {one.counts.sum() for one in done.validation.scenes.values()} == {SIDE * (SIDE - 5)}


def test_scores_out_of_fold_are_the_sum_of_the_folds_and_how_they_differ_stands_beside(done):
    metrics = read(done.folder / "metrics.json")
    single = [read(done.folder / f"fold-{fold}" / "metrics.json") for fold in range(3)]
    assert_array_equal(metrics["confusion"], np.sum([one["confusion"] for one in single], axis=0))
    water = [one["classes"]["water"]["iou"] for one in single]
    assert metrics["folds"]["count"] == 3
    assert metrics["folds"]["classes"]["water"]["iou"] == {
        "mean": pytest.approx(sum(water) / 3), "min": min(water), "max": max(water),
    }  # fmt: skip
    assert metrics["macro"]["iou"] == pytest.approx(mean_iou(np.array(metrics["confusion"])))


def test_folds_are_weighed_by_their_pixels():
    one = Evaluation(
        ("a", "b"), Confusion(np.array([[8, 0], [0, 0]]), 1), {"x": Confusion(np.array([[8, 0], [0, 0]]), 1)}
    )
    two = Evaluation(("a", "b"), Confusion(np.array([[0, 1], [1, 0]])), {"x": Confusion(np.array([[0, 1], [1, 0]]))})
    both = pooled([one, two])
    assert both.confusion.counts.tolist() == both.scenes["x"].counts.tolist() == [[8, 1], [1, 0]]
    assert both.confusion.ignored == 1
    assert both.report()["classes"]["a"]["iou"] == 0.8  # 8 / (8 + 1 + 1), while the mean of folds is (1 + 0) / 2
    assert spread([one.report()["classes"]["a"]["iou"], two.report()["classes"]["a"]["iou"]])["mean"] == 0.5


def test_the_folders_of_the_folds_are_whole_runs(done):
    names = {path.name for path in done.folder.iterdir()}
    assert names == {"fold-0", "fold-1", "fold-2", "model.safetensors", "metrics.json", "metrics_test.json", "run.json"}
    for run in done.folds:
        assert {"model.safetensors", "metrics.json", "metrics_test.json", "history.csv", "run.json"} <= {
            path.name for path in run.folder.iterdir()
        }
        assert geounet.load(run.folder / "model.safetensors").hash == run.model.hash


def test_a_fold_is_the_run_that_its_scenes_alone_would_have_given(done, folds, tmp_path):
    alone = train(folds[1], tmp_path / "alone", **TINY)
    assert alone.model.hash == done.folds[1].model.hash


def test_the_model_is_the_ensemble_of_the_folds_and_the_test_is_its_own(done, test_pairs):
    model = geounet.load(done.folder / "model.safetensors")
    assert isinstance(model.network, Ensemble)
    assert model.hash == done.model.hash
    singly = geounet.ensemble([run.model for run in done.folds])
    for name, weight in model.network.state_dict().items():
        assert_array_equal(weight, singly.network.state_dict()[name])
    again = evaluate(model, test_pairs, force=True, chip_size=64, **EXACT)
    assert_array_equal(read(done.folder / "metrics_test.json")["confusion"], again.confusion.counts)
    assert all(run.test is not None for run in done.folds)


def test_where_it_comes_from_travels_with_the_model(done):
    info = geounet.load(done.folder / "model.safetensors").info
    assert (info.name, info.provenance["licence"], info.provenance["seed"]) == ("ponds", "CC0", 5)
    assert [member["hash"] for member in info.provenance["members"]] == [run.model.hash for run in done.folds]
    assert info.provenance["metrics"].keys() == {"out-of-fold", "test"}
    assert info.provenance["metrics"]["out-of-fold"]["pixels"] == 6 * SIDE * (SIDE - 5)
    assert read(done.folder / "run.json")["model"]["hash"] == done.model.hash


def test_blocks_of_one_scene_are_validated_once_as_well(tmp_path):
    pair = labelled(tmp_path, 1)
    parts = [split_pairs([pair], by="block", size=300, folds=2, fold=fold) for fold in range(2)]
    done = cross_validate(parts, tmp_path / "blocks", **TINY)
    assert done.validation.confusion.counts.sum() == SIDE * (SIDE - 5)
    assert done.test is None
    assert not (done.folder / "metrics_test.json").exists()


def test_interrupted_it_goes_on_and_ends_as_if_nothing_had_been(done, folds, tmp_path):
    def until_the_last_fold(fold, _):
        if fold == 2:
            raise KeyboardInterrupt

    seen = []
    out = tmp_path / "ponds"
    with pytest.raises(KeyboardInterrupt):
        cross_validate(folds, out, progress=until_the_last_fold, **TINY)
    assert not out.exists()
    with pytest.raises(OutputExistsError, match=r"its folds are in .*ponds\.folds"):
        cross_validate(folds, out, **TINY)
    again = cross_validate(folds, out, resume=True, progress=lambda fold, _: seen.append(fold), **TINY)
    assert set(seen) == {2}
    assert [path.name for path in tmp_path.iterdir()] == ["ponds"]
    for name in ("metrics.json", "metrics_test.json"):
        assert (out / name).read_bytes() == (done.folder / name).read_bytes()
    assert again.model.hash == done.model.hash
    assert (out / "model.safetensors").read_bytes() == (done.folder / "model.safetensors").read_bytes()


def left_behind(done, place):
    """Leave what a process leaves that is killed once all folds are there, on its way to `place`."""
    beside = place.with_name(f"{place.name}.folds")
    shutil.copytree(done.folder, beside / "run")
    (beside / "lock").touch()


def test_killed_while_the_folds_are_joined_it_trains_none_of_them_again(folds, done, tmp_path):
    def trained_again(*_):
        pytest.fail("the fold was finished")

    left_behind(done, tmp_path / "ponds")
    again = cross_validate(folds, tmp_path / "ponds", resume=True, progress=trained_again, **TINY)
    assert again.model.hash == done.model.hash
    assert [path.name for path in tmp_path.iterdir()] == ["ponds"]
    assert (again.folder / "metrics.json").read_bytes() == (done.folder / "metrics.json").read_bytes()


def test_a_finished_one_is_returned_when_it_is_started_again(done, folds):
    before = (done.folder / "run.json").stat().st_mtime_ns
    again = cross_validate(folds, done.folder, resume=True, **TINY)
    assert again.model.hash == done.model.hash
    assert_array_equal(again.validation.confusion.counts, done.validation.confusion.counts)
    assert_array_equal(again.test.confusion.counts, done.test.confusion.counts)
    assert (done.folder / "run.json").stat().st_mtime_ns == before
    with pytest.raises(OutputExistsError, match="exists already"):
        cross_validate(folds, done.folder, **TINY)


def test_it_does_not_go_on_with_other_scenes_or_options(done, folds, tmp_path):
    left_behind(done, tmp_path / "ponds")
    with pytest.raises(ConfigError, match="other scenes"):
        cross_validate([folds[1], folds[0], folds[2]], tmp_path / "ponds", resume=True, **TINY)
    with pytest.raises(OutputExistsError, match=r"model\.width"):
        cross_validate(folds, tmp_path / "ponds", resume=True, **TINY | {"model": Network(depth=1, width=4)})
    (tmp_path / "ponds.folds" / "lock").unlink()
    with pytest.raises(OutputExistsError, match=r"holds something else"):
        cross_validate(folds, tmp_path / "ponds", resume=True, **TINY)


@pytest.mark.usefixtures("nothing_is_read")
def test_what_no_ensemble_could_be_made_of_is_refused_before_anything_is_read(folds, pool, tmp_path):
    def refused(match, *parts):
        with pytest.raises(ConfigError, match=match):
            cross_validate(parts, tmp_path / "out", **TINY)
        assert not any(path.name.startswith("out") for path in tmp_path.iterdir())

    refused("two folds or more", folds[0])
    refused("the same test scenes", folds[0], folds[1] | {"test": [pool[0]]})
    refused("the same test scenes", folds[0], {k: v for k, v in folds[1].items() if k != "test"})
    fewer = {
        split: [replace(pair, scene=pair.scene.select(["red", "nir"])) for pair in pairs]
        for split, pairs in folds[1].items()
    }
    refused("the same bands; fold 0 has blue, green", folds[0], fewer)
    others = Legend.of({10: "ground", 80: "water"})
    named = [labelled(tmp_path, number, others) for number in (1, 2)]
    refused(
        "the same classes; fold 0 has land, water",
        folds[0],
        {"train": named[:1], "validate": named[1:]},
    )


@pytest.fixture
def config(tmp_path):
    """Six scenes of three groups and one test scene in a table."""
    lines = ["scene,labels,split,group"]
    for number in (0, 1, 2, 3, 4, 5, 9):
        labelled(tmp_path, number)
        split = "test" if number == 9 else "train"
        lines.append(f"{number}.tif,{number}_truth.tif,{split},{number % 3 if number < 9 else 'apart'}")
    (tmp_path / "scenes.csv").write_text("\n".join(lines))
    values = {
        "scenes": {"table": {"path": "scenes.csv", "labels": "labels", "group": "group"}, "leaks": "allow"},
        "labels": {"legend": {10: "land", 80: "water"}},
        "sampler": {"chip_size": 16, "chips_per_epoch": 8},
        "model": {"depth": 1, "width": 2},
        "training": {"epochs": 1, "batch_size": 8, "device": "cpu"},
        "inference": EXACT,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "config.yaml"


def invoke(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_the_folds_of_a_table_keep_groups_whole_and_its_test_apart(config):
    folds = load_config(config, ["split.by=group", "split.folds=3"]).folds()
    validated = [{pair.group for pair in fold["validate"]} for fold in folds]
    assert sorted(map(sorted, validated)) == [["0"], ["1"], ["2"]]
    for fold in folds:
        assert {pair.group for pair in fold["train"]} == {"0", "1", "2"} - {pair.group for pair in fold["validate"]}
        assert [pair.group for pair in fold["test"]] == ["apart"]


def test_from_a_config_to_a_model_that_maps(config, tmp_path):
    result = invoke("train", config, "--cross-validate", "--set", "split.folds=2", "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "IoU over 2 folds" in result.output
    assert "test mIoU" in result.output
    assert {"config.yaml", "confusion.png", "fold-1", "metrics_test.json"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }
    page = (tmp_path / "run" / "fold-1" / "report.html").read_text(encoding="utf-8")
    assert f"--model {tmp_path}/run/fold-1/model.safetensors" in page  # not where it was while folds gathered
    assert "member 1" in invoke("info", tmp_path / "run" / "model.safetensors").output
    folds = [tmp_path / "run" / f"fold-{fold}" / "model.safetensors" for fold in range(2)]
    options = [part for path in folds for part in ("-m", path)]
    one, other = tmp_path / "one.tif", tmp_path / "other.tif"
    assert invoke("predict", tmp_path / "9.tif", "-m", tmp_path / "run" / "model.safetensors", "-o", one).exit_code == 0
    assert invoke("predict", tmp_path / "9.tif", *options, "-o", other).exit_code == 0
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 1, "does not say into how many folds"),
        (["--set", "split.folds=3", "--set", "split.fold=1"], 1, "leave split.fold out"),
        (["--set", "split.folds=3", "--random-split"], 2, "give one of them"),
        (["--set", "split.folds=7"], 1, "3 groups of scenes cannot fill"),
    ],
)
def test_a_slip_is_one_message(config, tmp_path, options, status, message):
    result = invoke("train", config, "--cross-validate", "-o", tmp_path / "run", *options)
    assert result.exit_code == status, result.output
    assert message in result.output
    assert not list(tmp_path.glob("run*"))


def test_of_several_launched_processes_those_that_do_not_lead_are_refused(monkeypatch, tmp_path):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="called by one process alone: under torchrun or srun, use the command"):
        cross_validate([], tmp_path / "run")
