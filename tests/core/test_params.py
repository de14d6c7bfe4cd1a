"""Parameters: two files, one section, one model; every mistake is one clear sentence."""

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params, load, load_profile, load_raw, profile, shown


class Optimiser(Params):
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)


class Train(Params):
    steps: int
    mode: Literal["off", "on"]
    shuffle: bool
    optimiser: Optimiser
    folder: Path | None = None


SHARED = """
profile: tiny
tomas:
  train:
    mode: off  # a word, not a boolean
    shuffle: true
    optimiser:
      betas: [0.9, 0.98]
"""
TINY = """
tomas:
  train:
    steps: 10
    optimiser: {lr: 1e-3}
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "profiles").mkdir()
    write(tmp_path, SHARED, TINY)
    return tmp_path


def write(root, shared=SHARED, tiny=TINY):
    (root / "params.yaml").write_text(shared, encoding="utf-8")
    (root / "profiles" / "tiny.yaml").write_text(tiny, encoding="utf-8")


def message(root, section="tomas.train", model=Train):
    with pytest.raises(UserError) as caught:
        load(section, model, root)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return caught.value.message


def test_both_files_make_one_model(root):
    train = load("tomas.train", Train, root)
    assert train == Train(steps=10, mode="off", shuffle=True, optimiser=Optimiser(lr=1e-3, betas=(0.9, 0.98)))


def test_off_is_a_string_as_dvc_reads_it(root):
    assert load_raw("tomas.train", root)["mode"] == "off"


def test_a_loaded_model_cannot_be_changed(root):
    with pytest.raises(ValueError, match="frozen"):
        load("tomas.train", Train, root).steps = 3


def test_the_working_directory_is_the_default_root(root, monkeypatch):
    monkeypatch.chdir(root)
    assert load("tomas.train", Train).steps == 10


def test_the_empty_section_is_everything(root):
    assert set(load_raw("", root)) == {"profile", "tomas"}


def test_the_raw_section_holds_plain_values(root):
    raw = load_raw("tomas.train", root)
    assert type(raw) is dict
    assert type(raw["optimiser"]["betas"]) is list


def test_an_empty_section_in_one_file_adds_nothing(root):
    write(root, tiny=TINY + "    # nothing\nprofile_notes:\n", shared="profile: tiny\ntomas:\n")
    assert load_raw("tomas.train", root)["steps"] == 10


def test_a_key_in_both_files_is_an_error(root):
    write(root, tiny=TINY + "    shuffle: false\n")
    text = message(root)
    assert "tomas.train.shuffle stands in both (true and false)" in text
    assert "params.yaml and " in text and "tiny.yaml" in text


def test_a_value_in_one_file_and_a_section_in_the_other_is_an_error(root):
    write(root, tiny=TINY + "    shuffle: {every: 2}\n")
    assert "tomas.train.shuffle stands in both" in message(root)


def test_an_unknown_key_is_named_with_the_known_ones(root):
    write(root, tiny=TINY + "    stepz: 3\n")
    assert "key tomas.train.stepz (value 3) is unknown; known there: steps, mode" in message(root)


def test_an_unknown_key_deeper_down_is_named_with_its_neighbours(root):
    write(root, tiny=TINY.replace("lr: 1e-3", "lr: 1e-3, eps: 1"))
    assert "key tomas.train.optimiser.eps (value 1) is unknown; known there: lr, betas" in message(root)


def test_a_missing_key_is_named_with_its_type(root):
    write(root, tiny=TINY.replace("steps: 10", ""))
    assert "key tomas.train.steps is missing; expected int" in message(root)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("steps: 10", 'steps: "10"', 'tomas.train.steps is "10": input should be a valid integer'),
        ("steps: 10", "steps: 1.5", "tomas.train.steps is 1.5: input should be a valid integer"),
        ("steps: 10", "steps: true", "tomas.train.steps is true: input should be a valid integer"),
        ("lr: 1e-3", "lr: .nan", "tomas.train.optimiser.lr is NaN: input should be a finite number"),
        ("lr: 1e-3", "lr: .inf", "tomas.train.optimiser.lr is Infinity: input should be a finite number"),
    ],
)
def test_a_mistyped_value_is_named_with_what_is_expected(root, old, new, expected):
    write(root, tiny=TINY.replace(old, new))
    assert expected in message(root)


def test_a_value_outside_the_choices_is_named_with_them(root):
    write(root, shared=SHARED.replace("mode: off", "mode: maybe"))
    assert "tomas.train.mode is \"maybe\": input should be 'off' or 'on'" in message(root)


def test_several_mistakes_are_told_at_once(root):
    write(root, tiny=TINY.replace("steps: 10", "stepz: 10"))
    text = message(root)
    assert "tomas.train.steps is missing" in text and "tomas.train.stepz" in text


def test_a_missing_section_is_named(root):
    assert "section tomas.sleep is missing" in message(root, "tomas.sleep")


def test_a_value_is_not_a_section(root):
    assert 'tomas.train.mode is "off"; expected a section' in message(root, "tomas.train.mode")


def test_bad_yaml_is_named_with_its_line(root):
    write(root, tiny="a: 1\nb: [1, 2\n")
    assert "tiny.yaml, line 3: not valid YAML" in message(root)


def test_a_key_written_twice_is_an_error(root):
    write(root, tiny=TINY + "tomas: {}\n")
    assert 'found duplicate key "tomas"' in message(root)


def test_a_file_that_is_no_mapping_is_an_error(root):
    write(root, tiny="- a\n")
    assert 'tiny.yaml: expected a mapping of sections, found ["a"]' in message(root)


def test_a_file_that_is_no_text_is_an_error(root):
    (root / "params.yaml").write_bytes(b"\xff\xfe\x00profile")
    assert "params.yaml: not valid YAML" in message(root)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml: no such file"):
        load_raw("tomas", tmp_path)


def test_the_profile_is_the_one_that_params_names(root):
    assert profile(root) == "tiny"


def test_a_profile_without_a_file_lists_those_there_are(root):
    (root / "profiles" / "full.yaml").write_text("{}")
    write(root, shared=SHARED.replace("profile: tiny", "profile: huge"))
    assert 'profile is "huge"; expected one of the files in ' in (text := message(root)) and ": full, tiny." in text


def test_a_missing_profile_key_is_an_error(root):
    write(root, shared="tomas: {}\n")
    assert "key profile is missing" in message(root)


def test_a_profile_can_be_read_by_name(root):
    (root / "profiles" / "full.yaml").write_text("tomas: {train: {steps: 99}}")
    assert load_profile("full", root) == {"tomas": {"train": {"steps": 99}}}
    with pytest.raises(UserError, match=r'profile is "fill"; .*: full, tiny'):
        load_profile("fill", root)


@pytest.mark.parametrize("name", ["../tiny", "3", "", "[tiny]"])
def test_a_profile_must_be_a_safe_name(root, name):
    write(root, shared=SHARED.replace("profile: tiny", f"profile: {name}"))
    assert "profile" in message(root)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_shown_value_is_one_short_line(value):
    text = shown(value)
    assert len(text) <= 80 and "\n" not in text
