"""The tool registry: what is committed holds, any other one works, every mistake is one clear sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.tomas.registry import SPLITS, Registry, Tool, read_registry

PHRASES = {split: [f"{split} it"] for split in SPLITS}


def written(tmp_path, value):
    path = tmp_path / "tools.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def refused(tmp_path, value) -> str:
    path = written(tmp_path, value)
    with pytest.raises(UserError) as caught:
        read_registry(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message and len(caught.value.message) < 250 + len(str(path))
    return caught.value.message


def one_tool(**tool):
    return {"input_sizes": ["small"], "tools": [{"name": "tool", **tool}]}


def test_the_committed_registry_has_the_seven_tools_of_the_seed(registry):
    assert set(registry.names) == {
        "image_classification", "text_summarization", "image_captioning", "object_detection", "machine_translation",
        "super_resolution", "visual_question_answering",
    }  # fmt: skip
    assert registry.input_sizes == ["small", "medium", "large"]


def test_every_committed_tool_is_described_and_asked_for_in_several_ways(registry):
    assert all(tool.description and len(tool.asked(split)) > 1 for tool in registry.tools for split in SPLITS)


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_no_held_out_request_is_part_of_a_training_request_or_the_other_way_round(registry, held_out):
    trained = [request.lower() for tool in registry.tools for request in tool.asked("train")]
    for request in (request.lower() for tool in registry.tools for request in tool.asked(held_out)):
        assert not any(request in one or one in request for one in trained), request


def test_no_request_asks_for_two_tools(registry):
    requests = [request.lower() for tool in registry.tools for split in SPLITS for request in tool.asked(split)]
    assert len(set(requests)) == len(requests)


def test_a_tool_without_requests_is_asked_for_by_its_name_and_differently_in_every_split():
    asked = [request for split in SPLITS for request in Tool(name="speech_to_text").asked(split)]
    assert all("speech to text" in request for request in asked)
    assert len(set(asked)) == len(asked) >= 3


@given(
    st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", fullmatch=True), min_size=1, max_size=9, unique=True),
    st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5, unique=True),
)
def test_any_distinct_names_are_read_in_the_order_of_their_ids(tmp_path_factory, names, sizes):
    value = {"input_sizes": sizes, "tools": [{"name": name} for name in names]}
    registry = read_registry(written(tmp_path_factory.mktemp("registry"), value))
    assert (registry.names, registry.input_sizes) == (names, sizes)


def test_a_registry_written_as_json_reads_the_same(tmp_path, registry):
    assert read_registry(written(tmp_path, registry.model_dump_json())) == registry
    assert isinstance(registry, Registry)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "not valid JSON"),
        ('{"tools": [', "not valid JSON"),
        ("[]", "expected a JSON object, found a list"),
        ({"input_sizes": ["small"]}, "key tools is missing"),
        ({"tools": [{"name": "tool"}]}, "key input_sizes is missing"),
        ({**one_tool(), "tolls": 3}, "tolls is 3"),
        ({"input_sizes": ["small"], "tools": []}, "tools is []"),
        ({"input_sizes": [], "tools": [{"name": "tool"}]}, "input_sizes is []"),
        ({"input_sizes": ["small", " "], "tools": [{"name": "tool"}]}, 'input_sizes is ["small", " "]'),
        ({"input_sizes": ["s", "m", "s"], "tools": [{"name": "tool"}]}, "input size 's' stands there twice"),
        ({"input_sizes": ["s"], "tools": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "tool 'a' stands there twice"),
        ({"input_sizes": ["s"], "tools": {"name": "a"}}, "tools is {"),
        ({"input_sizes": ["s"], "tools": [{"description": "x"}]}, "key tools.0.name is missing"),
        (one_tool(name="two words"), 'tools.0.name is "two words"'),
        (one_tool(name=""), 'tools.0.name is ""'),
        (one_tool(cost=1), "tools.0.cost is 1"),
    ],
)
def test_a_registry_that_makes_no_sense_is_refused(tmp_path, value, words):
    assert words in refused(tmp_path, value)


@pytest.mark.parametrize(
    "requests",
    [
        {"train": ["a"], "test": ["b"]},
        PHRASES | {"extra": ["c"]},
        PHRASES | {"test": []},
        PHRASES | {"test": [""]},
        PHRASES | {"train": ["a", "  "]},
    ],
)
def test_requests_need_every_split_and_a_phrase_in_each(tmp_path, requests):
    assert "at least one request for each of: train, validation, test" in refused(tmp_path, one_tool(requests=requests))


def test_a_request_that_is_no_text_is_named(tmp_path):
    assert "tools.0.requests.test.0 is 3" in refused(tmp_path, one_tool(requests=PHRASES | {"test": [3]}))


def test_a_long_value_is_cut(tmp_path):
    assert refused(tmp_path, one_tool(requests=[f"request {n}" for n in range(500)])).count("request ") < 20


def test_a_missing_registry_is_named(tmp_path):
    with pytest.raises(UserError, match=r"tools\.json: no such file"):
        read_registry(tmp_path / "tools.json")
