"""Score rules of thumb on the held-out tasks. Run: python -m stages.tomas.heuristic --profile ... --tasks ..."""

import click


@click.command()
@click.option("--profile", required=True, help="What the stage tomas-profile wrote.")
@click.option("--tasks", required=True, help="What the stage tomas-tasks wrote.")
@click.option("--metrics", required=True, help="JSON.")
def main(profile: str, tasks: str, metrics: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.tomas.heuristics import score_heuristics
    from qwenlab.tomas.prepare import read_prepared
    from qwenlab.tomas.solver import Objective
    from qwenlab.tomas.tasks import Capacity

    rows, _ = read_prepared(profile)
    score_heuristics(rows, tasks, load("tomas.capacity", Capacity), load("tomas.objective", Objective), metrics)


if __name__ == "__main__":
    main()
