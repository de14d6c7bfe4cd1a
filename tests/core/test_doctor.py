"""qwenlab doctor: what a profile needs is found in all its sections, and keys are never shown."""

import pytest

from qwenlab.core.doctor import check_keys, models_of

SECTIONS = {
    "profile": "full",
    "seeing": {
        "runtime": {"model": "a/one"},
        "images": {"draw_model": "a/two"},
        "infer": {"reflector_model": "data/x"},
    },
    "asking": {"teacher": {"base_url": "https://server.example/v1", "key_variable": "SOME_KEY", "name": "max"}},
    "local": {"teacher": {"base_url": "local", "key_variable": "LOCAL_KEY"}},
}


def test_every_checkpoint_of_a_profile_is_looked_for():
    assert models_of(SECTIONS) == ["a/one", "a/two"]


@pytest.mark.parametrize(("value", "state"), [("", "missing"), ("secret-123", "ok")])
def test_a_server_needs_its_key_and_the_key_stays_unseen(monkeypatch, value: str, state: str):
    monkeypatch.setenv("SOME_KEY", value)
    (check,) = check_keys(SECTIONS)
    assert check.state == state and "SOME_KEY" in check.text and "secret" not in check.text
