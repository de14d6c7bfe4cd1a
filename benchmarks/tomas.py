"""What planning by heads saves over writing plans, side by side in one process. Run: make bench

Four questions, answered on the stand-in (tiny profile) with the planner that the pipeline trained:

- a plan by one forward pass and two heads, against the same plan written as JSON, token by token with a KV cache, by
  the same backbone; that writer is trained here, on the same tasks, as long, with the same LoRA and state prefix;
- plans a second by batch size;
- the cost of a plan when the memory grows to 100,000 configurations;
- a step of phase 0 with its two savings (tool names embedded once, logits only where a label is) and without.

Times are medians of interleaved runs and are shown as ratios. Writes benchmarks/tomas.md; `--smoke` runs the same code
in seconds and writes nothing.
"""

import copy
import itertools
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from _timing import interleaved
from _tomas_plain import Phase0, Writer, named_row, random_model, row_ids, train_writer

from qwenlab.core.errors import UserError
from qwenlab.core.params import load
from qwenlab.tomas.export import Memory, read_memory
from qwenlab.tomas.model import Runtime, load_backbone
from qwenlab.tomas.planner import LoadedPlanner, load_planner
from qwenlab.tomas.pretrain import Pretrain
from qwenlab.tomas.profiling import Profile
from qwenlab.tomas.tasks import read_tasks
from qwenlab.tomas.train import Train

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    repeats: int = 60
    tasks: int = 300  # held-out tasks, for the accuracy
    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    rows: int = 100_000  # of the large memory
    grown: tuple[int, ...] = (1, 64)  # batches that it is tried with
    large: tuple[int, int, int] = (256, 50_000, 32)  # hidden size, vocabulary, batch of the larger phase 0


SMOKE = Sizes(repeats=1, tasks=2, batches=(1, 4), rows=3000, grown=(1,), large=(32, 2000, 4))


def line(what: str, ratio: float, *seconds: float, least: float = 0.0, most: float = 0.0) -> str:
    """A line of the table of ratios, with its aim if there is one; milliseconds are side information."""
    aim = f">= {least:g}x" if least else f"<= {most:g}x" if most else "-"
    met = "-" if aim == "-" else "met" if least <= ratio <= (most or ratio) else "**missed**"
    return f"| {what} | **{ratio:.2f}x** | {aim} | {met} | {' / '.join(f'{s * 1e3:.3g} ms' for s in seconds)} |"


def head_plans(loaded: LoadedPlanner, texts: list[str], states: np.ndarray) -> list[int]:
    """Configuration ids, all tasks in one batch: everything from words and states to plans."""
    return loaded.predict(loaded.hidden(texts, states, batch=len(texts))).config_ids[:, 0].tolist()


def speed(
    loaded: LoadedPlanner, writer: Writer, rows: dict, texts: list[str], states: np.ndarray, repeats: int
) -> list[str]:
    """One plan in every way; the tasks take turns, and each way sees the same ones."""
    kept = [writer.read(text, state) for text, state in zip(texts, states, strict=True)]
    lengths = [cache.get_seq_length() for _, cache in kept]

    def prompt_known(index: int) -> list[int]:
        logits, cache = kept[index]
        cache.crop(lengths[index] - cache.get_seq_length())
        return writer.go_on(logits, cache)

    written: dict[str, Callable[[int], list[int]]] = {
        "`generate`": lambda i: writer.generate(texts[i], states[i]),
        "a bare greedy loop": lambda i: writer.go_on(*writer.read(texts[i], states[i])),
        "a bare greedy loop, reading the prompt not counted": prompt_known,
    }
    if any(len({tuple(way(index)) for way in written.values()}) > 1 for index in range(len(texts))):
        raise RuntimeError("the ways of writing a plan write different ones")
    ways: dict[str, Callable[[int], object]] = {
        name: lambda i, w=way: named_row(writer.tokenizer.decode(w(i)), rows)  # type: ignore[misc]
        for name, way in written.items()
    }
    ways["heads"] = lambda i: head_plans(loaded, texts[i : i + 1], states[i : i + 1])
    turns = {name: itertools.cycle(range(len(texts))) for name in ways}
    seconds = interleaved({name: lambda n=name: ways[n](next(turns[n])) for name in ways}, repeats)
    base = seconds.pop("heads")
    return [line(f"a plan by heads, against {n}", s / base, base, s, least=20) for n, s in seconds.items()]


def accuracy(
    loaded: LoadedPlanner, writer: Writer, rows: dict, memory: Memory, tasks: list[dict], states: np.ndarray
) -> list[str]:
    """Exact plans of both on the same held-out tasks."""
    right = np.array([task["config_id"] for task in tasks])
    said = [writer.go_on(*writer.read(task["text"], state)) for task, state in zip(tasks, states, strict=True)]
    found = {
        "heads": np.array(head_plans(loaded, [task["text"] for task in tasks], states)),
        "JSON": np.array([named_row(text, rows) for text in writer.tokenizer.batch_decode(said)]),
    }
    lines = ["| plan by | exact | seen in training | new | names a row |", "| --- | --- | --- | --- | --- |"]
    groups = [np.ones(len(tasks), bool), ~memory.new[right], memory.new[right]]
    for name, plans in found.items():
        shares = [f"{(plans == right)[group].mean():.3f}" if group.any() else "-" for group in groups]
        lines.append(f"| {name} | **{shares[0]}** | {shares[1]} | {shares[2]} | {(plans >= 0).mean():.3f} |")
    heads, written = ((plans == right).mean() for plans in found.values())
    length, met = statistics.median(map(len, said)), "met" if heads >= written else "**missed**"
    return [
        *lines,
        "",
        f"Aim: heads are right at least as often: {met}. A written plan has {length:g} tokens (median).",
    ]


def grown(loaded: LoadedPlanner, rows: int) -> LoadedPlanner:
    """The planner with random configurations appended to its memory."""
    planner, draw = copy.deepcopy(loaded.planner), torch.Generator().manual_seed(0)
    decoder, more = planner.decoder, rows - len(loaded.rows)
    like = torch.randint(len(loaded.rows), (more,), generator=draw)
    noise = torch.randn(more, decoder.memory.shape[1], generator=draw) * decoder.memory.detach().std()
    decoder.append(decoder.centre + noise, decoder.tool_ids[like], decoder.requests[like], decoder.latency[like])
    return replace(loaded, planner=planner, rows=np.arange(rows))


def batches(loaded: LoadedPlanner, texts: list[str], states: np.ndarray, sizes: Sizes) -> list[str]:
    """Plans a second by batch size, and the cost of a larger memory."""
    large, repeats = grown(loaded, sizes.rows), max(sizes.repeats // 3, 1)

    def run(planner: LoadedPlanner, size: int) -> Callable[[], object]:
        some = [index % len(texts) for index in range(size)]
        return lambda: head_plans(planner, [texts[index] for index in some], states[some])

    seconds = interleaved({size: run(loaded, size) for size in sizes.batches}, repeats)
    base, rate = seconds.pop(1), "plans a second in batches of {}, against one at a time"
    lines = [line(rate.format(n), n * base / s, s / n, base) for n, s in seconds.items()]
    for size in sizes.grown:
        cost = interleaved({len(one.rows): run(one, size) for one in (loaded, large)}, repeats)
        few, many = cost.values()
        what = f"cost of a batch of {size} from {sizes.rows:,} rows, against {len(loaded.rows):,}"
        lines.append(line(what, many / few, few, many, most=2))
    return lines


def compare(step: Phase0, label: str, repeats: int) -> tuple[str, str]:
    """A step of phase 0 in both ways: the line of the table, and how well the gradients agree."""
    ours, plain = step.gradients(step.ours), step.gradients(step.plain)
    apart, largest = (ours - plain).abs().max().item(), ours.abs().max().item()
    runs = {"ours": lambda: step.gradients(step.ours), "plain": lambda: step.gradients(step.plain)}
    seconds = interleaved(runs, repeats)
    row = line(f"a step of phase 0, {label}", seconds["plain"] / seconds["ours"], *seconds.values(), least=2)
    padding = (step.labels == -100).float().mean().item()
    return row, f"- {label}: at most {apart:.1e} apart, the largest is {largest:.1e}; {padding:.0%} padding."


def phase0(params: Pretrain, runtime: Runtime, profile: Profile, sizes: Sizes) -> tuple[list[str], list[str]]:
    """Both ways on the stand-in, and on a larger random model."""
    model, tokenizer = load_backbone(runtime.model, runtime.dtype, runtime.device)
    hidden, vocab, batch = sizes.large
    large, fewer = random_model(hidden, vocab), params.model_copy(update={"batch": batch})
    label = f"random model where logits dominate (hidden size {hidden}, vocabulary {vocab:,})"
    found = [
        compare(Phase0(params, profile, model, tokenizer), "stand-in", max(sizes.repeats // 3, 1)),
        compare(Phase0(fewer, profile, large, tokenizer), label, max(sizes.repeats // 8, 1)),
    ]
    return [row for row, _ in found], [note for _, note in found]


def measure(runtime: Runtime, train: Train, pretrain: Pretrain, memory: Memory, planner: str, tasks_dir: str,
            sizes: Sizes) -> str:  # fmt: skip
    """Everything, as the text of benchmarks/tomas.md."""
    loaded, rows = load_planner(planner, runtime, memory), row_ids(memory.profile)
    writer = train_writer(train, runtime, memory.profile, *read_tasks(tasks_dir, "train"))
    tasks, states = read_tasks(tasks_dir, "test")
    tasks, states = tasks[: sizes.tasks], states[: sizes.tasks]
    texts, some = [task["text"] for task in tasks], min(len(tasks), 20)
    steps, notes = phase0(pretrain, runtime, memory.profile, sizes)
    lines = [
        "# tomas: heads against written plans",
        "",
        f"`make bench` on {torch.get_num_threads()} CPU threads, torch {torch.__version__}, {runtime.model}; seed 0. "
        "Ratios are medians of interleaved runs; milliseconds are side information (first the one that is divided by).",
        "",
        "| measurement | ratio | aim | met | time |",
        "| --- | --- | --- | --- | --- |",
        *speed(loaded, writer, rows, texts[:some], states[:some], sizes.repeats),
        *batches(loaded, texts, states, sizes),
        *steps,
        "",
        f"Both planners on {len(tasks)} held-out tasks, trained for {train.steps} steps of {train.batch} tasks:",
        "",
        *accuracy(loaded, writer, rows, memory, tasks, states),
        "",
        "Gradients of the two ways of phase 0:",
        "",
        *notes,
        "",
    ]
    return "\n".join(lines)


@click.command()
@click.option("--model", help="Backbone; tomas.runtime.model if not given.")
@click.option("--memory", default="data/tomas/export_weights", show_default=True)
@click.option("--planner", default="data/tomas/train/memory/seed0", show_default=True)
@click.option("--tasks", default="data/tomas/tasks", show_default=True)
@click.option("--smoke", is_flag=True, help="Tiny numbers, in seconds; nothing is written.")
def main(model: str | None, memory: str, planner: str, tasks: str, smoke: bool) -> None:
    """Compare heads with written plans, batches, memories and steps of phase 0; writes benchmarks/tomas.md."""
    for folder in (memory, planner, tasks):
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder; `dvc repro tomas-train` makes it.")
    runtime = load("tomas.runtime", Runtime)
    runtime = runtime.model_copy(update={"device": "cpu", "model": model or runtime.model})
    train, pretrain = load("tomas.train", Train), load("tomas.pretrain_encoder", Pretrain)
    if smoke:
        train = train.model_copy(update={"steps": 2, "batch": 4, "warmup_steps": 0})
        pretrain = pretrain.model_copy(update={"batch": 4})
    text = measure(runtime, train, pretrain, read_memory(memory), planner, tasks, SMOKE if smoke else Sizes())
    print(text)
    if smoke:
        return
    with tempfile.NamedTemporaryFile("w", dir=HERE, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(HERE / "tomas.md")


if __name__ == "__main__":
    main()
