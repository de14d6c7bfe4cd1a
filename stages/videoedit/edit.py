"""Edit the clip on one arm, all seeds, rolled out and teacher-forced. Run: python -m stages.videoedit.edit on ..."""

import click


@click.command()
@click.argument("arm")
@click.option("--clip", required=True, help="What prepare wrote.")
@click.option("--out", required=True)
def main(arm: str, clip: str, out: str) -> None:
    from qwenlab.core.params import load, load_raw
    from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
    from qwenlab.videoedit.experiment import edit_arm
    from qwenlab.videoedit.pipeline import Drawing, Runtime

    edit_arm(
        load("videoedit.runtime", Runtime),
        load("videoedit.edit", Drawing),
        load(f"videoedit.arms.{arm}", LossGuidanceConfig),
        load("videoedit.sizes", LossSizes),
        load_raw("videoedit")["seeds"],
        clip,
        out,
    )


if __name__ == "__main__":
    main()
