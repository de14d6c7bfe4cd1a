"""What the text half of thinkseg costs, side by side in one process. Run: make bench

Three questions:

- labels a second with 1, 4 and 16 requests at once, from a server that takes 200 ms an answer (a real one, over HTTP);
- seconds a summary: the student in batches, against one at a time, and against the teacher at that latency (the seed
  states 0.5 s for its student and 8 s for qwen-max);
- what the grammar costs and what it is good for: constrained against free decoding, time a token, and the share of
  answers that are valid summaries, for the student and for its base.

Writes benchmarks/thinkseg.md; `--smoke` runs the same code in seconds and writes nothing. Masks are measured by
benchmarks/thinkseg_segment.py.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from qwenlab.core.errors import UserError
from qwenlab.core.params import load
from qwenlab.thinkseg.label import label_all
from qwenlab.thinkseg.local_server import Faults
from qwenlab.thinkseg.records import Thinking, read_models
from qwenlab.thinkseg.student import StudentRuntime
from qwenlab.thinkseg.summarize import Decode, Summariser
from qwenlab.thinkseg.summary import parse_summary
from qwenlab.thinkseg.teacher import Teacher

HERE = Path(__file__).parent
LATENCY = 0.2  # seconds


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    labels: int = 80
    summaries: int = 40
    repeats: int = 3
    latency: float = LATENCY


SMOKE = Sizes(labels=4, summaries=2, repeats=1, latency=0.01)


def line(what: str, ratio: float, aim: float, *seconds: float) -> str:
    """A line of the table of ratios; times are side information."""
    met = "-" if not aim else "met" if ratio >= aim else "**missed**"
    times = " / ".join(f"{s * 1e3:.3g} ms" for s in seconds)
    return f"| {what} | **{ratio:.2f}x** | {f'>= {aim:g}x' if aim else '-'} | {met} | {times} |"


def labelling(teacher: Teacher, thinkings: list[Thinking], sizes: Sizes) -> tuple[list[str], dict[int, float]]:
    """Lines of the table, and seconds a label by number of workers."""
    some, seconds = thinkings[: sizes.labels], {}
    for workers in (1, 4, 16):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            account = label_all(
                teacher.model_copy(update={"workers": workers}), Faults(latency_s=sizes.latency), some, folder
            )
            seconds[workers] = (time.perf_counter() - start) / len(some)
            if account.paid != len(some):
                raise RuntimeError(f"{account.paid} labels of {len(some)}")
    base = seconds[1]
    return [
        line(f"labels a second with {n} workers, against 1", base / seconds[n], 3.5 if n == 4 else 0, seconds[n], base)
        for n in (4, 16)
    ], seconds


def timed(summariser: Summariser, materials: list[str], batch: int) -> tuple[float, list[str]]:
    """(seconds a summary, texts)."""
    texts: list[str] = []
    start = time.perf_counter()
    for at in range(0, len(materials), batch):
        texts += summariser.write(materials[at : at + batch])
    return (time.perf_counter() - start) / len(materials), texts


def valid(texts: list[str]) -> float:
    """Share of texts that are good summaries."""
    good = 0
    for text in texts:
        try:
            parse_summary(text)
            good += 1
        except ValueError:
            pass
    return good / len(texts)


def decoding(runtime: StudentRuntime, decode: Decode, adapter: Path, materials: list[str], sizes: Sizes, label: float,
             teacher: float) -> tuple[list[str], list[str]]:  # fmt: skip
    """(lines of ratios, lines of the table of validity)."""
    rows, table = [], []
    free = decode.model_copy(update={"constrained": False})
    for name, weights in (("student", adapter), ("base", None)):
        ways = {"grammar": Summariser(runtime, decode, weights), "free": Summariser(runtime, free, weights)}
        times: dict[str, list[float]] = {way: [] for way in ways}
        texts: dict[str, list[str]] = {}
        for summariser in ways.values():
            summariser.write(materials[:1])  # warm-up
        for _ in range(sizes.repeats):
            for way, summariser in ways.items():
                took, texts[way] = timed(summariser, materials, decode.batch)
                times[way].append(took)
        seconds = {way: statistics.median(values) for way, values in times.items()}
        tokenizer = ways["free"].tokenizer
        tokens = {way: sum(len(ids) for ids in tokenizer(found)["input_ids"]) for way, found in texts.items()}
        cost = {way: seconds[way] * len(materials) / max(1, tokens[way]) for way in ways}
        for way in ways:
            table.append(
                f"| {name} | {way} | {valid(texts[way]):.3f} | {tokens[way] / len(materials):.0f} "
                f"| {1e3 * seconds[way]:.3g} ms |"
            )
        what = f"time a token of the {name}, free, against under the grammar"
        rows.append(line(what, cost["free"] / cost["grammar"], 0, cost["grammar"], cost["free"]))
        if name == "student":
            single, _ = timed(ways["grammar"], materials[: max(1, len(materials) // 4)], 1)
            rows += [
                line("summaries a second by the student, against the teacher (1 worker)", label / seconds["grammar"], 0,
                     seconds["grammar"], label),
                line("the same, against the teacher with 16 workers", teacher / seconds["grammar"], 0,
                     seconds["grammar"], teacher),
                line(f"the student in batches of {decode.batch}, against one at a time", single / seconds["grammar"], 0,
                     seconds["grammar"], single),
            ]  # fmt: skip
    return rows, table


def measure(thinkings: list[Thinking], adapter: Path, model: str | None, sizes: Sizes) -> str:
    """Everything, as the text of benchmarks/thinkseg.md."""
    runtime, decode = load("thinkseg.runtime", StudentRuntime), load("thinkseg.decode", Decode)
    runtime = runtime.model_copy(update={"model": model}) if model else runtime
    held_out = [one for one in thinkings if one.split == "test"] or thinkings
    rows, seconds = labelling(load("thinkseg.teacher", Teacher), thinkings, sizes)
    materials = [one.material for one in held_out[: sizes.summaries]]
    more, table = decoding(runtime, decode, adapter, materials, sizes, seconds[1], seconds[16])
    lines = [
        "# thinkseg: labels, summaries, grammar",
        "",
        f"`make bench` on {torch.get_num_threads()} CPU threads, torch {torch.__version__}, {runtime.model}, seed 0; "
        f"the server answers after {1e3 * sizes.latency:.0f} ms. Ratios are side by side in one process; milliseconds "
        "are side information (first the one that is divided by).",
        "",
        "| measurement | ratio | aim | met | time |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        *more,
        "",
        "| writer | decoding | valid summaries | tokens a summary | time a summary |",
        "| --- | --- | --- | --- | --- |",
        *table,
    ]
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--smoke", is_flag=True, help="In seconds, on little data; writes nothing.")
@click.option("--thinkings", default="data/thinkseg/thinking/scripted", show_default=True)
@click.option("--student", default="data/thinkseg/student/seed0", show_default=True)
@click.option("--model", help="Base of the student; by default that of the active profile.")
def main(smoke: bool, thinkings: str, student: str, model: str | None) -> None:
    """Measure, and write benchmarks/thinkseg.md."""
    for path, stage in ((thinkings, "thinkseg-thinking"), (student, "thinkseg-student")):
        if not Path(path).is_dir():
            raise UserError(f"{path}: no such folder; `dvc repro {stage}` makes it.")
    text = measure(read_models(Path(thinkings) / "thinking.jsonl", Thinking), Path(student), model,
                   SMOKE if smoke else Sizes())  # fmt: skip
    click.echo(text)
    if not smoke:
        (HERE / "thinkseg.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
