"""Phase 3 of one arm, every seed. Run: python -m stages.hsa.reflect on --start ... --explored ... --out ..."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("arm")
@click.option("--start", required=True, help="Models after phase 2: what the stage hsa-train wrote for an arm.")
@click.option("--explored", required=True, type=click.Path(path_type=Path), help="What the stage hsa-explore wrote.")
@click.option("--out", required=True)
def main(arm: str, start: str, explored: Path, out: str) -> None:
    from qwenlab.core.launch import relaunch
    from qwenlab.core.params import load, load_raw
    from qwenlab.hsa.model import Arm, Runtime
    from qwenlab.hsa.train import Phases, run

    runtime = load("hsa.runtime", Runtime)
    if not relaunch(runtime.processes, runtime.device, "stages.hsa.reflect", sys.argv[1:]):
        settings = load("hsa.train", Phases), runtime, load(f"hsa.arms.{arm}", Arm), load_raw("hsa")["seeds"]
        run(*settings, {"reflective": explored / "reflective.jsonl"}, start, out)


if __name__ == "__main__":
    main()
