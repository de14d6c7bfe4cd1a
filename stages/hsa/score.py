"""Score one arm on held-out worlds. Run: python -m stages.hsa.score on --worlds ... --models ... --metrics ..."""

import click


@click.command()
@click.argument("arm")
@click.option("--worlds", required=True, help="What the stage hsa-worlds wrote.")
@click.option("--explored", required=True, help="What the stage hsa-explore wrote.")
@click.option("--models", required=True, help="Models after phase 2: what the stage hsa-train wrote.")
@click.option("--reflected", required=True, help="Models after phase 3: what the stage hsa-reflect wrote.")
@click.option("--metrics", required=True, help="Folder for <arm>.json and <arm>.csv.")
def main(arm: str, worlds: str, explored: str, models: str, reflected: str, metrics: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.hsa.model import Arm, Runtime
    from qwenlab.hsa.score import Score, score_arm

    settings = load("hsa.score", Score), load("hsa.runtime", Runtime), load(f"hsa.arms.{arm}", Arm)
    score_arm(arm, *settings, worlds, explored, models, reflected, metrics)


if __name__ == "__main__":
    main()
