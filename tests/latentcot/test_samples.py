"""What is wrong with a sample is said by name; nothing is trained on it."""

import copy
import json

import pytest
from PIL import Image

from qwenlab.core.errors import UserError
from qwenlab.latentcot.features import build
from qwenlab.latentcot.samples import Rejected, open_image, parse, read_samples
from qwenlab.latentcot.scene_data import Data, make
from qwenlab.latentcot.tokens import PLACEHOLDER
from tests.latentcot import vl

GOOD = make(Data(seed=1, train=1, test=1, right=0.3, chained=0, named=0.5, auxiliary="target"), 1, 0.0, 1, False)[0]


def changed(change) -> dict:
    record = copy.deepcopy(GOOD)
    change(record)
    return record


def content(record: dict, role: int = 2) -> list:
    return record["data"][role]["content"]


def say(record: dict, text: str) -> None:
    content(record)[2]["text"] = text


BAD = {
    "placeholders": lambda r: content(r)[0].update(text=""),
    "1 assistant images, but 2 placeholders": lambda r: say(r, f"{PLACEHOLDER}<observation>x</observation>"),
    "no image": lambda r: r["data"][2].update(content="<observation>x</observation>"),
    "no <observation>": lambda r: say(r, "all right"),
    "is not closed": lambda r: say(r, "<observation>all right"),
    "is empty": lambda r: say(r, "<observation> </observation>"),
    "metadata.sample_id is missing": lambda r: r["metadata"].pop("sample_id"),
    "metadata.dataset_name is missing": lambda r: r["metadata"].pop("dataset_name"),
    "metadata.dataset_name 'a/b'": lambda r: r["metadata"].update(dataset_name="a/b"),
    "no metadata": lambda r: r.pop("metadata"),
    "roles": lambda r: r["data"].pop(),
    "neither": lambda r: content(r, 1)[0].update(type="audio"),
}  # fmt: skip


@pytest.mark.parametrize("words", BAD)
def test_a_bad_sample_is_rejected_with_the_reason(words):
    if words == "placeholders":  # an image without a placeholder before it
        words = "no <abs_vis_token></abs_vis_token> in the text before it"
        record = changed(BAD["placeholders"])
    else:
        record = changed(BAD[words])
    with pytest.raises(Rejected) as error:
        parse(record)
    assert words in str(error.value)


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def test_rejected_samples_are_named_and_the_others_kept(tmp_path):
    other = changed(lambda r: r["metadata"].update(sample_id="7"))
    bad = changed(lambda r: say(r, "nothing"))
    samples, rejected = read_samples(write(tmp_path / "a.jsonl", GOOD, other, GOOD, bad))
    assert [s.name for s in samples] == ["scenes_0", "scenes_7"]
    assert "line 3 (sample 0)" in rejected[0] and "stands in line 1 already" in rejected[0]
    assert "line 4" in rejected[1]


def test_a_file_without_a_usable_sample_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no usable sample .1 rejected"):
        read_samples(write(tmp_path / "a.jsonl", changed(lambda r: say(r, "x"))))
    with pytest.raises(UserError, match="cannot be read"):
        read_samples(tmp_path / "none.jsonl")
    (tmp_path / "b.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"b.jsonl, line 1: not valid JSON"):
        read_samples(tmp_path / "b.jsonl")


@pytest.mark.parametrize(("size", "words"), [((15, 40), "at least 16"), ((16, 3300), "aspect")])
def test_an_image_under_a_merge_cell_or_too_narrow_is_rejected(tmp_path, size, words):
    Image.new("RGB", size).save(tmp_path / "a.png")
    with pytest.raises(Rejected, match=words):
        open_image("a.png", tmp_path, 16)


def test_an_image_that_is_none_is_rejected(tmp_path):
    with pytest.raises(Rejected, match="no such image"):
        open_image("none.png", tmp_path, 16)
    with pytest.raises(Rejected, match="data URI"):
        open_image("data:image/png;base64,abcd", tmp_path, 16)


def test_a_sample_with_a_bad_image_is_left_out_by_name(base, tmp_path):
    from qwenlab.latentcot.checkpoint import load

    model, processor = load(base, vl.runtime(str(base)))
    bad = changed(lambda r: (content(r, 1)[0].update(image="gone.png"), r["metadata"].update(sample_id="9")))
    samples, _ = read_samples(write(tmp_path / "a.jsonl", GOOD, bad))
    _, kept, rejected = build(model, processor, samples, tmp_path)
    assert [s.name for s in kept] == ["scenes_0"] and "scenes_9" in rejected[0] and "gone.png" in rejected[0]


def test_the_example_file_is_read_whole(root):
    samples, rejected = read_samples(root / "examples/latentcot/train.jsonl")
    assert len(samples) == 4 and not rejected
