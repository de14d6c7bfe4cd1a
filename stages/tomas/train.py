"""Train the planner on one arm, every seed. Run: python -m stages.tomas.train memory --tasks ... --out ..."""

import sys

import click


@click.command()
@click.argument("arm")
@click.option("--tasks", required=True, help="What the stage tomas-tasks wrote.")
@click.option("--memory", required=True, help="What the stage tomas-export_weights wrote.")
@click.option("--out", required=True)
def main(arm: str, tasks: str, memory: str, out: str) -> None:
    from qwenlab.core.launch import relaunch
    from qwenlab.core.params import load, load_raw
    from qwenlab.tomas.decoder import HeadConfig
    from qwenlab.tomas.model import Runtime
    from qwenlab.tomas.solver import Objective
    from qwenlab.tomas.tasks import Capacity
    from qwenlab.tomas.train import Goal, Train, run

    runtime = load("tomas.runtime", Runtime)
    if not relaunch(runtime.processes, runtime.device, "stages.tomas.train", sys.argv[1:]):
        head = load(f"tomas.arms.{arm}", HeadConfig)
        goal = Goal(load("tomas.capacity", Capacity), load("tomas.objective", Objective))
        run(load("tomas.train", Train), runtime, head, goal, load_raw("tomas")["seeds"], memory, tasks, out)


if __name__ == "__main__":
    main()
