"""ShareGPT files become typed conversations, or end with one sentence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.hsa.conversations import Conversation, Message, Tags, conversation, read_conversations
from qwenlab.hsa.semantics import GLOBAL, LANDMARK, NOISE, TYPE_IDS

ASK = {"from": "human", "value": "Where is the cup?", "semantic_type": "NOISE"}
ANSWER = {"from": "gpt", "value": "On the shelf."}


def record(*messages, **more):
    return {"conversations": list(messages), **more}


def written(folder, text, name="train.json"):
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False), encoding="utf-8")
    return path


def types(found: Conversation) -> list[int]:
    return [message.semantic_id for message in found.messages]


def test_roles_text_and_types_are_read():
    system, tool = {"from": "system", "value": "Be brief."}, {"from": "observation", "value": "{}"}
    found = conversation(record(system, ASK, {**ANSWER, "semantic_type": "KEY_EVENT"}, tool, ANSWER))
    assert found.messages == (
        Message("system", "Be brief.", GLOBAL),
        Message("user", "Where is the cup?", NOISE),
        Message("assistant", "On the shelf.", LANDMARK),
        Message("tool", "{}", GLOBAL),
        Message("assistant", "On the shelf.", GLOBAL),
    )


def test_the_other_dialect_gives_the_same():
    names = {"from": "role", "value": "content", "human": "user", "gpt": "assistant"}
    other = {"messages": [{names.get(k, k): names.get(v, v) for k, v in turn.items()} for turn in (ASK, ANSWER)]}
    assert conversation(other) == conversation(record(ASK, ANSWER))


def test_other_names_can_be_given():
    tags = Tags(messages=("talk",), role_tag=("who",), content_tag=("what",), semantic_tag=("kind",), user_tag=("me",))
    turns = [{"who": "me", "what": "Hi", "kind": "LANDMARK"}, {"who": "gpt", "what": "Hello"}]
    assert types(conversation({"talk": turns}, tags)) == [LANDMARK, GLOBAL]


def test_one_name_for_two_roles_is_refused():
    with pytest.raises(UserError, match="one name for two roles"):
        conversation(record(ASK, ANSWER), Tags(user_tag=("gpt",)))


@pytest.mark.parametrize("name", TYPE_IDS)
def test_every_name_of_a_type_is_known(name):
    assert types(conversation(record({**ASK, "semantic_type": name}, ANSWER))) == [TYPE_IDS[name], GLOBAL]


def test_a_record_without_types_is_global_whatever_the_others_have(tmp_path):
    untyped = {key: value for key, value in ASK.items() if key != "semantic_type"}
    null = {**ASK, "semantic_type": None}
    found = read_conversations(written(tmp_path, [record(ASK, ANSWER), record(untyped, ANSWER), record(null, ANSWER)]))
    assert [types(one) for one in found] == [[NOISE, GLOBAL], [GLOBAL, GLOBAL], [GLOBAL, GLOBAL]]


def test_the_system_column_comes_first_and_may_be_empty():
    assert conversation(record(ASK, ANSWER, system="Be brief.")).messages[0] == Message("system", "Be brief.", GLOBAL)
    assert conversation(record(ASK, ANSWER, system="")) == conversation(record(ASK, ANSWER, id=7, images=[]))


def test_lists_and_lines_read_alike_whatever_the_suffix(tmp_path):
    records = [record(ASK, ANSWER), record({**ASK, "value": "line\u2028end 保持 🐰"}, ANSWER)]
    lines = "\ufeff" + "\r\n\n".join(json.dumps(one, ensure_ascii=False) for one in records)
    by_list = read_conversations(written(tmp_path, records, "a.jsonl"))
    by_line = read_conversations(written(tmp_path, lines, "b.json"))
    assert [one.messages for one in by_list] == [one.messages for one in by_line]
    assert by_list[1].at.endswith("a.jsonl, record 2") and by_line[1].at.endswith("b.json, record 2 (line 3)")


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@settings(deadline=None)
@given(turns=st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(sorted(TYPE_IDS))), min_size=1, max_size=4))
def test_any_text_and_types_survive_json(tmp_path_factory, turns):
    messages = []
    for ask, answer, kind in turns:
        messages += [{"from": "human", "value": ask, "semantic_type": kind}, {"from": "gpt", "value": answer}]
    path = written(tmp_path_factory.getbasetemp(), json.dumps(record(*messages), ensure_ascii=False), "any.jsonl")
    (found,) = read_conversations(path)
    assert [message.content for message in found.messages] == [text for turn in turns for text in turn[:2]]
    assert types(found)[::2] == [TYPE_IDS[kind] for *_, kind in turns]


def turn(**change):
    return record({**ASK, **change}, ANSWER)


BAD: dict[str, tuple[object, str]] = {
    "a number": (3, "is 3; expected an object with conversations or messages"),
    "no messages": ({"id": 1}, 'key conversations or messages is missing; found ["id"]'),
    "messages twice": (record(ASK, ANSWER, messages=[]), "both of conversations and messages"),
    "messages that are no list": ({"messages": "hi"}, 'the messages are "hi"; expected a list'),
    "no message": (record(), "the messages are []; expected a list with at least one"),
    "a message that is no object": (record("hi"), 'message 1 is "hi"; expected an object'),
    "no role": (record({"value": "hi"}), "message 1: key from or role is missing"),
    "no content": (record({"from": "human"}), "message 1: key value or content is missing"),
    "an unknown role": (turn(**{"from": "robot"}), 'message 1: role is "robot"; expected one of system, human'),
    "a list for a role": (turn(**{"from": ["human"]}), 'role is ["human"]'),
    "blank text": (turn(value=" \n"), 'message 1: content is " \\n"; expected text'),
    "a number for text": (turn(value=1), "content is 1; expected text"),
    "half a character": (turn(value="a\ud800"), "content has '\\ud800', half a character"),
    "an unknown type": (turn(semantic_type="landmark"), "1: semantic_type is 'landmark'; expected one of GLOBAL"),
    "a list for a type": (turn(semantic_type=[]), "message 1: semantic_type is '[]'"),
    "a mistyped key": (record({"from": "human", "value": "hi", "semanticType": "NOISE"}, ANSWER), "mean semantic_type"),
    "two of the same": (record(ASK, ASK, ANSWER), "message 2 is user; expected assistant"),
    "an answer first": (record(ANSWER, ASK), "message 1 is assistant; expected user or tool"),
    "system in the middle": (record(ASK, {**ASK, "from": "system"}), "message 2 is system; expected assistant"),
    "no assistant": (record(ASK), "no assistant turn among user"),
    "only a system message": (record({**ASK, "from": "system"}), "no assistant turn among system"),
    "a question last": (record(ASK, ANSWER, ASK), "the last message is user"),
    "system twice": (record({**ASK, "from": "system"}, ASK, ANSWER, system="hi"), 'system is "hi" and message 1'),
    "a number for system": (record(ASK, ANSWER, system=1), "system is 1; expected text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("by_line", [False, True])
def test_a_bad_record_is_named_in_one_sentence(tmp_path, name, by_line):
    bad, message = BAD[name]
    records = [json.dumps(one) for one in (record(ASK, ANSWER), bad)]
    path = written(tmp_path, "\n".join(records) if by_line else f"[{','.join(records)}]")
    with pytest.raises(UserError) as caught:
        read_conversations(path)
    assert caught.value.message.startswith(f"{path}, record 2") and message in caught.value.message
    assert "\n" not in caught.value.message and len(caught.value.message) < len(str(path)) + 250


BAD_FILES = {
    "empty": ("", "no records"),
    "an empty list": ("[]", "no records"),
    "half a list": ('[{"conversations"', "not JSON"),
    "half a line": ('{"conversations": [', "record 1 (line 1): not JSON"),
    "a key twice": ('{"conversations": [{"from": "human", "from": "gpt"}]}', "key 'from' stands there twice"),
    "a key twice in a list": ('[{"messages": [], "messages": []}]', "key 'messages' stands there twice"),
    "too deep": ("[" * 100_000, "not JSON"),
    "too many digits": ("[" + "9" * 5000 + "]", "not JSON"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named(tmp_path, name):
    text, message = BAD_FILES[name]
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_conversations(path)
    assert caught.value.message.startswith(str(path)) and message in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.json").write_bytes("[é]".encode("latin-1"))
    for name, message in (("no.json", "No such file"), ("", "Is a directory"), ("latin.json", "not UTF-8 text")):
        with pytest.raises(UserError, match=f"cannot be read .{message}"):
            read_conversations(tmp_path / name)
