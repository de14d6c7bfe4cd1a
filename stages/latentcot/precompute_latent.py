"""Teacher latents, for stage 1-3.

Run: python -m stages.latentcot.precompute_latent --data ... --checkpoints ... --out ...
"""

import click


@click.command()
@click.option("--data", required=True, help="What the stage latentcot-data wrote.")
@click.option("--checkpoints", required=True, help="What the stage latentcot-stage1_2 wrote.")
@click.option("--out", required=True)
def main(data: str, checkpoints: str, out: str) -> None:
    from qwenlab.latentcot.stage import precompute

    precompute("latent", data, checkpoints, out)


if __name__ == "__main__":
    main()
