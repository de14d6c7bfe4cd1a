"""The world: what is put is bound to one room, nothing gives it away, and held-out worlds stay held out."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.hsa.conversations import conversation, read_conversations
from qwenlab.hsa.semantics import GLOBAL, LANDMARK, NOISE
from qwenlab.hsa.world import Sizes, answer, held_out, make_world, record
from qwenlab.hsa.worlds import LENGTHS, Files, Worlds, write_worlds

SIZES = Sizes(puts=3, noise=8, asks=2)
NONE = dict.fromkeys(Files.model_fields)


@given(st.integers(0, 10**6), st.booleans())
def test_a_world_belongs_to_the_part_it_was_asked_for(seed: int, test: bool):
    world = make_world(random.Random(seed), SIZES, test)
    assert held_out(world.where) == test
    assert len(world.where) == 3 and len(world.wanted) == 2 and set(world.wanted) <= set(world.where)
    assert sum(kind == "saw" for kind, _, _ in world.events) == 8


@given(st.integers(0, 10**6))
def test_an_experts_record_is_a_valid_conversation_that_answers_right(seed: int):
    world = make_world(random.Random(seed), SIZES)
    messages = conversation(record(world)).messages
    said = [message.content for message in messages if message.content.startswith("fetch") and message.role != "user"]
    assert said == [answer(thing, world.where[thing]) for thing in world.wanted]
    types = {message.content.split()[0]: message.semantic_id for message in messages if message.role == "user"}
    assert types.pop("put") == LANDMARK and types.pop("saw") == NOISE
    assert types == {"Fetch": GLOBAL, "fetch": GLOBAL}


def test_a_wrong_answer_is_told_behind_feedback_and_put_right():
    world = make_world(random.Random(1), SIZES)
    right = [world.where[thing] for thing in world.wanted]
    turns = record(world, ["nowhere", right[1]])["conversations"]
    told = [n for n, turn in enumerate(turns) if turn["value"].startswith("<|feedback|>")]
    assert len(told) == 1 and world.wanted[0] in turns[told[0]]["value"]
    assert turns[told[0] + 1]["value"] == answer(world.wanted[0], right[0])
    assert len(record(world, right)["conversations"]) == told[0]  # nothing wrong, nothing told


def test_files_are_the_same_twice_and_longer_ones_have_more_noise(tmp_path: Path):
    params = Worlds(seed=0, expert=3, validation=2, test=2, sizes=SIZES)
    for name in ("a", "b"):
        write_worlds(params, Files(**NONE), tmp_path / name)
    lengths = []
    for name in LENGTHS:
        text = (tmp_path / "a" / f"test_{name}.jsonl").read_bytes()
        assert text == (tmp_path / "b" / f"test_{name}.jsonl").read_bytes()
        lengths.append(len(read_conversations(tmp_path / "a" / f"test_{name}.jsonl")[0].messages))
    assert lengths == [lengths[0], lengths[0] + 2 * 8, lengths[0] + 2 * 24]


def test_files_of_ones_own_are_checked_and_taken(tmp_path: Path):
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps([record(make_world(random.Random(0), SIZES))]))
    write_worlds(Worlds(seed=0, expert=1, validation=1, test=1, sizes=SIZES),
                 Files(**dict.fromkeys(Files.model_fields, str(mine))), tmp_path / "out")  # fmt: skip
    assert read_conversations(tmp_path / "out" / "expert.jsonl")
    mine.write_text("[{}]")
    with pytest.raises(UserError, match=r"mine\.json, record 1"):
        write_worlds(Worlds(seed=0, expert=1, validation=1, test=1, sizes=SIZES),
                     Files(**dict.fromkeys(Files.model_fields, str(mine))), tmp_path / "bad")  # fmt: skip
    assert not (tmp_path / "bad").exists()


def test_some_files_of_ones_own_without_the_others_are_refused():
    with pytest.raises(ValueError, match="only expert given"):
        Files(**{**NONE, "expert": "mine.json"})
