"""`qwenlab plan`: which tool, and how many resources, for a task in words on a machine as busy as this (seed 002, 5).

tomas/requests.py checks what is written on the command line or in a batch file, tomas/plan.py answers it. Answers go
to stdout or --out, everything else to stderr.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import click

from qwenlab.core.errors import UserError
from qwenlab.core.params import load, load_raw, shown, where
from qwenlab.tomas.plan import Request, extend
from qwenlab.tomas.plan import plan as plan_all
from qwenlab.tomas.profiling import COLUMNS, RESOURCES, read_profile
from qwenlab.tomas.requests import read_requests, readable
from qwenlab.tomas.tasks import SAMPLES, Capacity

MADE = Path("data") / "tomas"  # what the pipeline writes


def path_option(name: str, text: str, **kwargs):
    return click.option(name, type=click.Path(path_type=Path), help=text, **kwargs)


@click.command(context_settings={"max_content_width": 110})
@click.argument("task", required=False)
@path_option(
    "--state",
    f"CSV of the machine's recent utilisation: columns {', '.join(RESOURCES)}; {SAMPLES} rows, the oldest first; each "
    "cell from 0 (idle) to 1 (all of it is used).",
)
@click.option("--top-k", type=click.IntRange(1), default=1, show_default=True, help="The best plan and K - 1 others.")
@click.option(
    "--free",
    metavar="NAME=NUMBER,...",
    help="What is free, as a hard limit: CPU cores, GB, SMs of the GPU, GB of the GPU. Some or all of "
    "cpu_cores=8,memory_gb=16,gpu_sm=60,gpu_memory_gb=8; the others are taken from the state. Without --free the "
    "planner judges by the state alone.",
)
@click.option(
    "--deadline",
    metavar="TIME",
    help="Longest latency, as a hard limit: 5s, 800ms, '2 min', or a number of ms. Without it the planner reads the "
    "deadline in TASK.",
)
@path_option(
    "--add-config",
    f"CSV of configurations to choose from as well, profiled after the training: columns {', '.join(COLUMNS)}. "
    "Nothing is trained.",
)
@path_option(
    "--batch",
    'JSONL of many tasks, one a line: {"id": 1, "task": "...", "state": [[0.1, 0.2, 0.3, 0.4], ...]}, with "state_csv" '
    '(from the file\'s folder) in place of "state", and "free": {"gpu_sm": 60} and "deadline_ms": 5000 if wanted.',
)
@path_option("--out", "JSONL for the answers to --batch, in the same order. Without it they are printed.")
@path_option("--planner", "Folder of a trained planner: <arm>/seed<k>. By default the arm in params.yaml, first seed.")
@path_option("--memory", "The exported memory.", default=MADE / "export_weights", show_default=True)
@path_option("--encoder", "The encoder for --add-config.", default=MADE / "pretrain_encoder", show_default=True)
def plan(task: str | None, batch: Path | None, out: Path | None, top_k: int, **options) -> None:
    """Choose a tool and its resources for TASK, a sentence such as "caption this photo, small, within 5 s".

    Prints one JSON object: tool, configuration, resources, latency, probabilities, and whether it fits what is free
    and meets the deadline. If nothing does, its status is no_feasible_config and it names the nearest miss.

    \b
    qwenlab plan "Find all objects in the image. It is large, within 30 s." --state state.csv --top-k 3
    qwenlab plan "Caption this picture, small." --state state.csv --free gpu_sm=40,gpu_memory_gb=4 --deadline 5s
    qwenlab plan --batch tasks.jsonl --out plans.jsonl
    """
    requests = read_requests(task, batch, out, options)
    answers = run(requests, top_k, options)
    if batch is None:
        click.echo(json.dumps(answers[0], indent=2, ensure_ascii=False, allow_nan=False))
        return
    text = "".join(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n" for answer in answers)
    if out is None:
        click.echo(text, nl=False)
        return
    from qwenlab.core.io import write_text

    write_text(out, text)
    click.echo(f"{len(answers)} plans in {out}", err=True)


def run(requests: list[Request], top_k: int, options: Mapping) -> list[dict]:
    """Load the memory and the planner, and answer all requests; a bar on a terminal shows how far it is."""
    from rich.console import Console

    from qwenlab.core.progress import progress
    from qwenlab.tomas.encoder import ResourceEncoderForPretraining
    from qwenlab.tomas.export import read_memory
    from qwenlab.tomas.model import Runtime
    from qwenlab.tomas.planner import load_planner

    runtime, capacity = load("tomas.runtime", Runtime), load("tomas.capacity", Capacity)
    folder, file = options["encoder"], options["add_config"]
    with readable(options["memory"]):
        memory = read_memory(options["memory"])
    before = len(memory.profile)
    if file is not None:
        with readable(file):
            extra = read_profile(file, memory.profile.registry)
        with readable(folder):
            encoder = ResourceEncoderForPretraining.from_pretrained(folder)
        memory = extend(memory, extra, encoder, (file, folder))
        click.echo(f"{len(extra)} configurations of {file} added, from config_id {before} on.", err=True)
    planner = options["planner"] or default_planner()
    with readable(planner, f"loaded with {runtime.model} in {runtime.dtype} on {runtime.device}"):
        loaded = load_planner(planner, runtime, memory)
    console = Console(stderr=True)
    with progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("tasks", total=len(requests))
        added = len(memory.profile) - before
        return plan_all(loaded, memory, requests, capacity, top_k, added, lambda done: bars.update(bar, completed=done))


def default_planner() -> Path:
    """The planner of the arm that `tomas.arm` names, of the first seed."""
    from qwenlab.core.rules import arm_name

    tomas, at = load_raw("tomas"), f"{where()}: tomas"
    arm, seeds = arm_name(tomas.get("arm"), f"{at}.arm"), tomas.get("seeds")
    if not isinstance(seeds, list) or not seeds:
        raise UserError(f"{at}.seeds is {shown(seeds)}; expected a list of seeds.")
    return MADE / "train" / arm / f"seed{seeds[0]}"
