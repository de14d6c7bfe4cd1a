"""Phases 1 and 2 of one arm, every seed. Run: python -m stages.hsa.train on --worlds ... --explored ... --out ..."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("arm")
@click.option("--worlds", required=True, type=click.Path(path_type=Path), help="What the stage hsa-worlds wrote.")
@click.option("--explored", required=True, type=click.Path(path_type=Path), help="What the stage hsa-explore wrote.")
@click.option("--out", required=True)
def main(arm: str, worlds: Path, explored: Path, out: str) -> None:
    from qwenlab.core.launch import relaunch
    from qwenlab.core.params import load, load_raw
    from qwenlab.hsa.model import Arm, Runtime
    from qwenlab.hsa.train import Phases, run

    runtime = load("hsa.runtime", Runtime)
    if not relaunch(runtime.processes, runtime.device, "stages.hsa.train", sys.argv[1:]):
        files = {"expert": worlds / "expert.jsonl", "mixed": explored / "mixed.jsonl"}
        settings = load("hsa.train", Phases), runtime, load(f"hsa.arms.{arm}", Arm), load_raw("hsa")["seeds"]
        run(*settings, files, None, out)


if __name__ == "__main__":
    main()
