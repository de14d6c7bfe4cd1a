"""The stage that has thinkings summarised: server, client, ledger, and the account of it (seed 004, stage three)."""

import asyncio
import contextlib
from pathlib import Path

from qwenlab.core.errors import UserError
from qwenlab.core.io import make_dir, write_json
from qwenlab.core.progress import progress
from qwenlab.core.summary import rounded
from qwenlab.thinkseg.ledger import Ledger
from qwenlab.thinkseg.local_server import Faults, serve
from qwenlab.thinkseg.prompt import messages, prompt_hash
from qwenlab.thinkseg.records import Thinking, read_models, write_rows
from qwenlab.thinkseg.teacher import LOCAL, Account, Teacher, label, read_key


def label_all(teacher: Teacher, faults: Faults, thinkings: list[Thinking], folder: str | Path) -> Account:
    """Fill `<folder>/ledger.jsonl`; the local server runs as long as that takes."""
    server = serve(faults, read_key(teacher)) if teacher.base_url == LOCAL else contextlib.nullcontext()
    with server as running, Ledger(Path(folder) / "ledger.jsonl") as ledger, progress() as bar:
        task = bar.add_task("summaries", total=len(thinkings))
        address = f"http://127.0.0.1:{running.server_port}/v1" if running else None
        return asyncio.run(label(teacher, thinkings, ledger, address, lambda: bar.advance(task)))


def rows_of(teacher: Teacher, thinkings: list[Thinking], folder: str | Path) -> tuple[list[dict], list[dict]]:
    """(a row a summarised thinking, every ledger entry that belongs to one of the requests)."""
    with Ledger(Path(folder) / "ledger.jsonl") as ledger:
        done, entries = ledger.done(), ledger.entries
    rows, wanted = [], set()
    for one in thinkings:
        key = (one.id, prompt_hash(teacher.name, teacher.mode, teacher.temperature, messages(one)))
        wanted.add(key)
        if key in done:
            rows.append({
                "id": one.id, "source": one.source, "split": one.split, "thinker": one.thinker,
                "summary": done[key]["summary"],
            })  # fmt: skip
    return rows, [entry for entry in entries if (entry["id"], entry["prompt"]) in wanted]


def run(teacher: Teacher, faults: Faults, thinking_file: str | Path, out: str | Path, metrics: str | Path) -> None:
    """Write `summaries.jsonl` beside the ledger, and the account as metrics.

    Raises:
        UserError: when records are left without a summary; running again asks for those and for nothing else.
    """
    out = make_dir(out)
    thinkings = [one for one in read_models(thinking_file, Thinking) if not one.problem]
    account = label_all(teacher, faults, thinkings, out)
    rows, entries = rows_of(teacher, thinkings, out)
    if account.failed:
        raise UserError(
            f"{account.failed} of {len(thinkings)} thinkings have no summary after {teacher.attempts} attempts each "
            f"(the last one: {account.reason}). Those that have are kept in {out}: run it again."
        )
    write_rows(out / "summaries.jsonl", rows)
    good = sum(entry["summary"] is not None for entry in entries)
    cost = sum(teacher.cost(entry) for entry in entries)
    write_json(metrics, rounded({
        "records": len(thinkings),
        "valid_rate": len({row["id"] for row in rows}) / max(1, len(thinkings)),
        "paid_twice": good - len({(entry["id"], entry["prompt"]) for entry in entries if entry["summary"]}),
        "answers_paid": len(entries),
        "bad_answers": len(entries) - good,
        "tokens_in": sum(entry["tokens_in"] for entry in entries),
        "tokens_out": sum(entry["tokens_out"] for entry in entries),
        "cost_usd": cost,
        "cost_usd_a_sample": cost / max(1, len(rows)),
        "injected_faults": faults.too_many + faults.placeholder + faults.truncated + faults.hang,
    }))  # fmt: skip
