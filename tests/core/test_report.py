"""The report page: what it says, that it needs no network, and that foreign text stays text."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from qwenlab.core.errors import UserError
from qwenlab.core.io import write_json, write_text
from qwenlab.core.media import write_image
from qwenlab.core.report import build
from qwenlab.core.wording import Entry, number, percent, rule_row

PARAMS = """profile: tiny
one:
  arm: off
  seeds: [0, 1]
  verdict: {control: off, treatment: on}
  accept: {loss: {max_ratio: 0.5}}
two:
  verdict: {control: text, treatment: latent}
  accept: {accuracy: {min: 1}}
"""
VERDICT = {
    "accepted": 0,
    "missed": 1,
    "rules": {
        "loss": {"max_ratio": {"value": 0.6, "control": 1.0, "limit": 0.5, "pass": 0}},
        "psnr": {"min_gain": {"value": 20.0, "control": 19.0, "limit": 0, "pass": 1}},
    },
    "aims": {"gram": {"max": {"limit": 3, "pass": 0}}},
}
CAPTIONS = """title: First
claim: It helps.
pictures:
  b.png: {caption: The second picture, alt: A red square.}
"""


def page(root, verdict=VERDICT, captions=CAPTIONS):
    """Two systems: `one` with everything, `two` that was not run. Returns the text of the page."""
    write_text(root / "params.yaml", PARAMS)
    write_text(root / "profiles" / "tiny.yaml", "one:\n  aim: {gram: {max: 3}}\n")
    write_text(root / "src" / "qwenlab" / "one" / "captions.yaml", captions)
    folder = root / "metrics" / "one"
    write_json(folder / "verdict.json", verdict)
    for arm in ("truth", "selected", "on", "off"):
        write_json(folder / f"{arm}.json", {"rollout": {"loss": 1.23456e-05}, "seeds": {"0": {"loss": 0.777}}})
    for name in ("a.png", "b.png"):
        write_image(folder / name, Image.new("RGB", (32, 32), "red"))
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "c.gif", save_all=True, append_images=frames[1:])
    return build(root / "report", root).read_text()


class Links(HTMLParser):
    """Collects what the page would load or open, and whether its tags close."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for key, value in attrs if key in ("src", "href", "srcset", "poster")]
        if tag not in ("meta", "link", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def words(text):
    """The page as read aloud: no tags, single spaces."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.S).split())


def test_everything_on_the_page_lies_beside_it(tmp_path):
    text = page(tmp_path)
    links = [link for link in Links(text).links if not link.startswith(("#", "data:,"))]
    assert {"one/a.png", "one/b.png", "one/c.gif", "one/c.gif.still.png"} == set(links)
    assert all((tmp_path / "report" / link).is_file() for link in links)
    assert not re.search(r"https?://|<script|@import|url\(", text)


def test_every_tag_is_closed(tmp_path):
    assert Links(page(tmp_path)).open == []


def test_two_runs_write_the_same_bytes(tmp_path):
    assert page(tmp_path) == page(tmp_path)


def test_the_page_names_no_absolute_path(tmp_path):
    assert str(tmp_path) not in page(tmp_path)


def test_foreign_text_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    rules = {evil: {"max@" + evil: {"value": 1.0, "limit": 2.0, "pass": 1}}}
    captions = f"title: {evil}\nclaim: {evil}\npictures:\n  a.png: {{caption: {evil}, alt: '\"{evil}'}}\n"
    text = page(tmp_path, {**VERDICT, "rules": rules}, captions)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 5
    assert Links(text).open == []


def test_a_failed_rule_and_a_missed_aim_are_said_in_words(tmp_path):
    text = words(page(tmp_path))
    assert "loss ✗ FAIL at most 0.5 × off 1 0.6 ≤ 0.5" in text
    assert "psnr ✓ pass at least off 19 20 ≥ 19" in text
    assert "gram ✗ missed at most 3 missing ≤ 3" in text
    assert "✗ not accepted 1 of 2 rules passed 1 of 1 aims missed" in text


def test_an_accepted_system_is_called_so(tmp_path):
    assert "✓ accepted 2 of 2 rules passed" in words(
        page(
            tmp_path,
            {**VERDICT, "accepted": 1, "rules": {"m": {r: VERDICT["rules"]["psnr"]["min_gain"] for r in "ab"}}},
        )
    )


def test_a_system_without_a_verdict_is_shown_as_not_run(tmp_path):
    text = words(page(tmp_path))
    assert "two not run – – text latent" in text
    assert "dvc repro two-verdict" in text


def test_arms_stand_in_order_and_without_the_numbers_of_single_seeds(tmp_path):
    text = words(page(tmp_path))
    assert "metric off on truth rollout.loss 1.235 × 10⁻⁵" in text
    assert "0.777" not in text


def test_parameters_of_both_files_are_shown(tmp_path):
    text = page(tmp_path)
    assert "profile: tiny\none:\n  arm: off" in text
    assert "aim:\n    gram:\n      max: 3" in text


def test_pictures_with_a_caption_come_first_and_have_an_alternative_text(tmp_path):
    images = [attrs for tag, attrs in Links(page(tmp_path)).tags if tag == "img"]
    assert [image["src"] for image in images] == ["one/b.png", "one/a.png", "one/c.gif"]
    assert [image["alt"] for image in images] == ["A red square.", "a.png of one", "c.gif of one"]


def test_a_picture_that_was_not_drawn_is_said_and_left_out(tmp_path):
    text = page(tmp_path, captions=CAPTIONS + "  d.png: {caption: gone}\n")
    assert "metrics/one/d.png was not drawn." in words(text)
    assert "one/d.png" not in Links(text).links


def test_a_moving_picture_has_a_still_for_those_who_want_no_motion(tmp_path):
    page(tmp_path)
    with Image.open(tmp_path / "report" / "one" / "c.gif.still.png") as still:
        assert still.getpixel((0, 0)) == (0, 0, 254) or still.getpixel((0, 0)) == (0, 0, 255)  # the last frame


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("metrics/one/a.png", "no picture", "a.png: cannot be read as an image"),
        ("metrics/one/a b.png", "", "cannot be part of a file name"),
        ("metrics/one/verdict.json", '{"accepted": 1}', "verdict.json: not of the expected form"),
        ("src/qwenlab/one/captions.yaml", "titel: x", "captions.yaml: not of the expected form .titel"),
        ("src/qwenlab/one/captions.yaml", "a: [", "captions.yaml: not valid YAML"),
    ],
)
def test_bad_input_is_named_and_the_old_report_stays(tmp_path, file, text, sentence):
    before = page(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=sentence):
        build(tmp_path / "report", tmp_path)
    assert (tmp_path / "report" / "index.html").read_text() == before


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path):
    write_text(tmp_path / "home" / "letter.txt", "dear")
    page(tmp_path)
    with pytest.raises(UserError, match="holds something else"):
        build(tmp_path / "home", tmp_path)
    assert (tmp_path / "home" / "letter.txt").exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"),
        (-1.5, "−1.5"),
        (1.23456e-05, "1.235 × 10⁻⁵"),
        (-2e-10, "−2 × 10⁻¹⁰"),
        (12345.6, "12346"),
        (480, "480"),
        (1e9, "1 × 10⁹"),
        (None, "missing"),
        (True, "missing"),
    ],
)
def test_a_number_has_four_digits_and_a_minus(value, shown):
    assert number(value) == shown


def test_a_share_is_shown_as_percent():
    assert (percent(0.9), percent(2 / 3), percent(None)) == ("90%", "66.67%", "missing")


@pytest.mark.parametrize(
    ("rule", "limit", "rule_words", "bound"),
    [
        ("min", 3, "at least 3", "≥ 3"),
        ("max", -1, "at most −1", "≤ −1"),
        ("max_ratio", 0.5, "at most 0.5 × off", "≤ 2"),
        ("max_ratio", 1, "at most off", "≤ 4"),
        ("min_ratio@truth", 0.1, "at least 0.1 × truth", "≥ 0.4"),
        ("min_gain", 0, "at least off", "≥ 4"),
        ("min_gain", 0.5, "at least off + 0.5", "≥ 4.5"),
        ("min_gain@on", -0.5, "at least on − 0.5", "≥ 3.5"),
        ("win_rate", 0.9, "at most off, in 90% of the items or more", "≥ 90%"),
        ("win_rate_high", 0.5, "at least off, in 50% of the items or more", "≥ 50%"),
    ],
)
def test_a_rule_is_said_in_words_and_its_limit_in_the_metrics_unit(rule, limit, rule_words, bound):
    row = rule_row("m", rule, Entry(**{"value": 1.0, "control": 4.0, "limit": limit, "pass": 1}), "off")
    assert (row.rule, row.limit) == (rule_words, bound)
