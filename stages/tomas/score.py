"""Score one arm on the held-out tasks. Run: python -m stages.tomas.score memory --tasks ... --planners ..."""

import click


@click.command()
@click.argument("arm")
@click.option("--tasks", required=True, help="What the stage tomas-tasks wrote.")
@click.option("--memory", required=True, help="What the stage tomas-export_weights wrote.")
@click.option("--planners", required=True, help="What the stage tomas-train wrote for the arm.")
@click.option("--metrics", required=True, help="Folder for <arm>.json and <arm>.csv.")
def main(arm: str, tasks: str, memory: str, planners: str, metrics: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.tomas.export import read_memory
    from qwenlab.tomas.model import Runtime
    from qwenlab.tomas.score import score_arm
    from qwenlab.tomas.solver import Objective
    from qwenlab.tomas.tasks import Capacity

    capacity, objective = load("tomas.capacity", Capacity), load("tomas.objective", Objective)
    score_arm(arm, load("tomas.runtime", Runtime), read_memory(memory), tasks, capacity, objective, planners, metrics)


if __name__ == "__main__":
    main()
