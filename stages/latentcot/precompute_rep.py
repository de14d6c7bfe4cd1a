"""Teacher states at observations, for stage 1-2.

Run: python -m stages.latentcot.precompute_rep --data ... --checkpoints ... --out ...
"""

import click


@click.command()
@click.option("--data", required=True, help="What the stage latentcot-data wrote.")
@click.option("--checkpoints", required=True, help="What the stage latentcot-stage1_1 wrote.")
@click.option("--out", required=True)
def main(data: str, checkpoints: str, out: str) -> None:
    from qwenlab.latentcot.stage import precompute

    precompute("rep", data, checkpoints, out)


if __name__ == "__main__":
    main()
