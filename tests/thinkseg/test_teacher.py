"""The client of the teacher against a real HTTP server with faults: retries, refusals, the account, the key."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from qwenlab.core.errors import UserError
from qwenlab.thinkseg.clips import make_clip
from qwenlab.thinkseg.label import label_all, rows_of, run
from qwenlab.thinkseg.ledger import Ledger
from qwenlab.thinkseg.local_server import Faults, serve
from qwenlab.thinkseg.prompt import messages, response_format
from qwenlab.thinkseg.questions import ask
from qwenlab.thinkseg.records import Thinking, read_rows, write_rows
from qwenlab.thinkseg.scripted import think
from qwenlab.thinkseg.summary import Summary
from qwenlab.thinkseg.teacher import RateLimit, Teacher, label, read_key
from qwenlab.thinkseg.thinking import Checks, checked

KEY = "sk-very-secret-0123456789"


def teacher(**changes) -> Teacher:
    values = {
        "base_url": "local", "name": "rules", "key_variable": "QWENLAB_TEST_KEY", "mode": "json_schema",
        "temperature": 0.0, "max_tokens": 600, "workers": 4, "requests_per_minute": 0.0, "timeout_s": 5.0,
        "attempts": 10, "backoff_s": 0.001, "price_in": 1.0, "price_out": 2.0,
    }  # fmt: skip
    return Teacher(**{**values, **changes})


@pytest.fixture(scope="module")
def thinkings() -> list[Thinking]:
    from qwenlab.thinkseg.records import Record

    found = []
    for index in range(12):
        clip, rng = make_clip("drift", 3, index), np.random.default_rng(index)
        question, asked = ask(clip.things, clip.tone, rng)
        record = Record(id=clip.clip_id, source="drift", video="x.mp4", question=question.text)
        text = think(clip.things, clip.tone, question, asked, rng)
        found.append(checked(record, "scripted", text, Checks(min_length=50, max_length=3000)))
    return found


def test_all_rows_are_valid_and_none_is_paid_twice_under_25_percent_faults(thinkings, tmp_path):
    file = tmp_path / "thinking.jsonl"
    write_rows(file, thinkings)
    faults = Faults(too_many=0.1, placeholder=0.1, truncated=0.05)
    run(teacher(), faults, file, tmp_path / "out", tmp_path / "account.json")
    rows = read_rows(tmp_path / "out" / "summaries.jsonl")
    assert [row["id"] for row in rows] == [one.id for one in thinkings]
    assert all(Summary.model_validate(row["summary"]) for row in rows)
    account = json.loads((tmp_path / "account.json").read_text())
    assert account["valid_rate"] == 1 and account["paid_twice"] == 0
    assert account["answers_paid"] - account["bad_answers"] == len(thinkings)


def test_a_second_run_asks_for_nothing(thinkings, tmp_path):
    first = label_all(teacher(), Faults(), thinkings, tmp_path)
    second = label_all(teacher(), Faults(), thinkings, tmp_path)
    assert (first.paid, second.asked) == (len(thinkings), 0)


def test_a_run_killed_mid_batch_pays_only_for_what_is_missing(thinkings, tmp_path):
    label_all(teacher(), Faults(), thinkings[:5], tmp_path)
    with open(tmp_path / "ledger.jsonl", "a") as file:
        file.write('{"id": "drift-000')  # the kill cut this line in half
    assert label_all(teacher(), Faults(), thinkings, tmp_path).paid == len(thinkings) - 5
    rows, entries = rows_of(teacher(), thinkings, tmp_path)
    assert len(rows) == len(entries) == len(thinkings)


def test_another_prompt_is_another_request(thinkings, tmp_path):
    label_all(teacher(), Faults(), thinkings[:2], tmp_path)
    assert label_all(teacher(temperature=0.5), Faults(), thinkings[:2], tmp_path).paid == 2


def test_a_server_that_hangs_is_given_up_after_the_timeout(thinkings, tmp_path):
    account = label_all(teacher(timeout_s=0.3, attempts=2), Faults(hang=1.0), thinkings[:1], tmp_path)
    assert (account.failed, account.refused, account.paid) == (1, 2, 0)


def test_answers_cut_off_are_paid_noted_and_asked_for_again(thinkings, tmp_path):
    account = label_all(teacher(attempts=3), Faults(truncated=1.0), thinkings[:1], tmp_path)
    assert (account.failed, account.paid, account.bad) == (1, 3, 3)
    assert "finish_reason is length" in account.reason


def test_records_without_a_summary_are_an_error_that_keeps_the_others(thinkings, tmp_path):
    file = tmp_path / "thinking.jsonl"
    write_rows(file, thinkings[:3])
    with pytest.raises(UserError, match="3 of 3 thinkings have no summary"):
        run(teacher(attempts=2), Faults(placeholder=1.0), file, tmp_path / "out", tmp_path / "m.json")
    assert not (tmp_path / "out" / "summaries.jsonl").exists()


def test_a_wrong_key_ends_at_once_and_no_message_shows_it(thinkings, tmp_path, monkeypatch):
    monkeypatch.setenv("QWENLAB_TEST_KEY", KEY)
    with serve(Faults(), key="another") as server, Ledger(tmp_path / "ledger.jsonl") as ledger:
        remote = teacher(base_url=f"http://127.0.0.1:{server.server_port}/v1")
        with pytest.raises(UserError) as caught:
            asyncio.run(label(remote, thinkings, ledger))
        assert server.answered[401] <= remote.workers
    assert KEY not in str(caught.value) and KEY not in repr(caught.value)
    assert "***" in str(caught.value)  # this server quotes the key
    assert caught.value.__suppress_context__


def test_a_missing_key_names_its_variable(monkeypatch):
    monkeypatch.delenv("QWENLAB_TEST_KEY", raising=False)
    with pytest.raises(UserError, match="QWENLAB_TEST_KEY is not set"):
        read_key(teacher(base_url="https://example.org/v1"))


def test_at_most_so_many_requests_are_under_way(thinkings, tmp_path):
    now, most, lock = [0], [0], threading.Lock()

    class Counting(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            threading.Event().wait(0.05)
            with lock:
                now[0] -= 1
            self.send_response(503)
            self.end_headers()

    from http.server import ThreadingHTTPServer

    server: HTTPServer = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        asyncio.run(
            label(teacher(workers=3, attempts=1), thinkings, ledger, f"http://127.0.0.1:{server.server_port}/v1")
        )
    server.shutdown()
    assert 1 < most[0] <= 3


def test_the_rate_limit_spaces_requests():
    async def three() -> float:
        limit, start = RateLimit(1200), asyncio.get_running_loop().time()
        for _ in range(3):
            await limit.wait()
        return asyncio.get_running_loop().time() - start

    assert asyncio.run(three()) >= 0.1 - 0.01


def test_every_mode_of_structured_output_has_its_format():
    assert response_format("text") is None
    assert response_format("json_object") == {"type": "json_object"}
    schema = response_format("json_schema")
    assert schema and schema["json_schema"]["schema"]["anyOf"]


def test_the_prompt_holds_context_and_thinking(thinkings):
    user = messages(thinkings[0])[1]["content"]
    assert thinkings[0].context in user and thinkings[0].thinking in user and thinkings[0].question in user
