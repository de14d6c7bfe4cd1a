"""Score one arm frame by frame, or the real clip. Run: python -m stages.videoedit.score on ..."""

import click


@click.command()
@click.argument("arm")
@click.option("--clip", required=True, help="What prepare wrote.")
@click.option("--frames", help="What edit wrote for the arm; left out for the real clip (arm `truth`).")
@click.option("--hed", required=True, help="Weights of the HED edge detector.")
@click.option("--metrics", required=True, help="Folder for <arm>.json and <arm>.csv.")
def main(arm: str, clip: str, frames: str | None, hed: str, metrics: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.videoedit.experiment import score_arm
    from qwenlab.videoedit.pipeline import Runtime

    score_arm(load("videoedit.runtime", Runtime), arm, clip, frames, hed, metrics)


if __name__ == "__main__":
    main()
