"""Tasks with their reference plans. Run: python -m stages.tomas.tasks --profile ... --out ..."""

import click


@click.command()
@click.option("--profile", required=True, help="What the stage tomas-profile wrote.")
@click.option("--out", required=True)
def main(profile: str, out: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.tomas.prepare import read_prepared
    from qwenlab.tomas.solver import Objective
    from qwenlab.tomas.tasks import Capacity, Tasks, write_tasks

    capacity, objective = load("tomas.capacity", Capacity), load("tomas.objective", Objective)
    write_tasks(*read_prepared(profile), capacity, objective, load("tomas.tasks", Tasks), out)


if __name__ == "__main__":
    main()
