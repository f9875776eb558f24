"""The page says what the run is, whatever its names, and needs nothing but itself."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geounet.report import PAGE, plot_run, write_page
from geounet.report.figures import _luminance
from geounet.report.markup import Html, tag
from geounet.report.style import STYLE

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)> & {{7*7}} \u202egnp.exe'
VOID = {"img", "meta", "br"}


class Reader(HTMLParser):
    """Elements with their attributes, and the text outside of style."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def of(self, name):
        return [attributes for element, attributes in self.elements if element == name]


def page_of(run):
    plot_run(run.folder, run)
    return (run.folder / PAGE).read_text(encoding="utf-8")


def test_hostile_names_are_text_and_nothing_else(run_of):
    run = run_of(
        names=("water", HOSTILE), scenes=(f"/data/{HOSTILE}.tif", "/data/b.tif"), name=HOSTILE, notes=HOSTILE,
        description=HOSTILE,
    )  # fmt: skip
    (run.folder / "config.yaml").write_text(f"card: {HOSTILE}")
    page = page_of(run)
    read = Reader(page)
    assert read.open == []
    assert not read.of("script")
    assert all(image["src"].startswith("data:image/png;base64,") for image in read.of("img"))
    assert not [key for _, given in read.elements for key in given if key.startswith("on")]
    assert "\u202e" not in page
    shown = HOSTILE.replace("\u202e", "")
    assert sum(shown in text for text in read.texts) >= 8  # title, heading, notes, tables, config


@given(st.text(), st.text())
def test_what_goes_into_an_element_comes_out_of_a_parser(text, value):
    element = ET.fromstring(tag("p", text, tag("b", text), title=value))
    bold = element.find("b")
    kept = re.sub("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", "", text)
    assert (element.text or "") == kept == (bold.text or "")
    assert len(element) == 1


def test_only_what_is_marked_so_is_markup():
    assert tag("p", Html("<b>"), "<b>", 3, None, ["a", ["<"]]) == "<p><b>&lt;b&gt;3a&lt;</p>"
    assert tag("img", alt='"', title=None) == '<img alt="&quot;">'


def test_the_page_fetches_nothing_and_may_not(run_of):
    page = page_of(run_of())
    read = Reader(page)
    assert not {name for name, _ in read.elements} & {"script", "link", "iframe", "object", "a", "form"}
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    (policy,) = [one["content"] for one in read.of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert len(page) < 6e6


def test_pictures_have_words_headings_are_in_order_and_tables_have_heads(run_of):
    read = Reader(page_of(run_of()))
    images = read.of("img")
    assert len(images) == 6  # two confusions, worst, sample, inputs, curves
    assert all(len(image["alt"]) > 20 for image in images)
    levels = [int(name[1]) for name, _ in read.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(given.get("scope") in ("row", "col") for given in read.of("th"))
    assert len(read.of("caption")) == len(read.of("table"))
    assert read.of("html") == [{"lang": "en"}]


@pytest.mark.parametrize("ink", set(re.findall(r"(?<!-)color: (#[0-9a-f]{6})", STYLE)))
@pytest.mark.parametrize("ground", ["#ffffff", "#f2f5f6"])
def test_text_is_dark_enough_on_its_ground(ink, ground):
    one, two = (_luminance([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]) for color in (ink, ground))
    assert (two + 0.05) / (one + 0.05) >= 4.5


def test_the_tables_say_what_the_scores_say(run_of):
    run = run_of()
    text = " ".join(Reader(page_of(run)).texts)
    for values in run.validation.report()["classes"].values():
        for key in ("iou", "f1", "precision", "recall"):
            assert f"{values[key]:.3f}" in text
        assert f"{values['support']:,}" in text
    assert f"{run.validation.miou:.3f}" in text
    assert "75.0 %" in text  # water in training
    assert "85.0 % of 200 labelled pixels are right; 14 have no label" in text
    assert "ended 2026-01-02 03:04 UTC" in text
    assert "geounet 9.9" in text
    assert f"{sum(one.numel() for one in run.model.parameters()):,}" in text
    assert "10.0 % of the training steps" in text
    assert "of the last epoch" in text


def test_undefined_scores_are_dashes(run_of):
    run = run_of()
    run.validation.confusion.counts[:] = 0
    run.validation.confusion.counts[0, 0] = 5
    text = Reader(page_of(run)).texts
    assert "–" in text
    assert "nan" not in " ".join(text).lower()


def test_keys_to_storage_are_left_out(run_of):
    scenes = ("https://host/a.tif?sv=1&sig=secret", "https://host/b.tif?sig=secret")
    run = run_of(scenes=scenes)
    (run.folder / "config.yaml").write_text(f"scenes: {{train: ['{scenes[0]}']}}")
    page = page_of(run)
    assert "secret" not in page
    assert "https://host/a.tif" in page


def test_the_command_can_be_copied_whatever_the_folder_is_called(run_of, tmp_path):
    run = run_of()
    object.__setattr__(run, "folder", tmp_path / "my run")
    (tmp_path / "run").rename(tmp_path / "my run")
    text = " ".join(Reader(page_of(run)).texts)
    assert f"geounet predict scene.tif --model '{(tmp_path / 'my run').as_posix()}/model.safetensors'" in text


def test_a_page_of_a_run_without_pictures_is_still_one(run_of):
    run = run_of()
    (run.folder / "run.json").unlink()
    read = Reader(write_page(run.folder, run).read_text(encoding="utf-8"))
    assert not read.of("img")
    assert "Scores" in read.texts


def test_a_plan_is_listed_with_its_reasons(run_of):
    run = run_of()
    (run.folder / "run.json").write_text(
        '{"plan": {"choices": {"training.batch_size": {"value": 16, "why": "the <largest> that fits"}}}}'
    )
    texts = Reader(page_of(run)).texts
    assert "training.batch_size" in texts
    assert "the <largest> that fits" in texts


def test_the_folder_is_filled_with_what_the_page_holds(run_of):
    run = run_of()
    page = page_of(run)
    assert {path.name for path in run.folder.iterdir()} == {
        "run.json", "curves.png", "confusion.png", "confusion_test.png", "inputs.png", "worst.png", "sample.png", PAGE,
    }  # fmt: skip
    assert page.startswith("<!doctype html>")
    assert page.count("data:image/png") == 6
