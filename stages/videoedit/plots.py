"""Draw the pictures of video editing. Run: python -m stages.videoedit.plots --clip ... --edits ... --metrics ..."""

import click


@click.command()
@click.option("--clip", required=True, help="What prepare wrote.")
@click.option("--edits", required=True, help="Folder with one sub-folder an arm, as edit wrote them.")
@click.option("--metrics", required=True, help="Folder of the arms' CSV files; gets the pictures.")
def main(clip: str, edits: str, metrics: str) -> None:
    """Write frames.png, per_frame.png and comparison.gif."""
    from qwenlab.core.params import load
    from qwenlab.videoedit.plots import Compared, draw

    draw(load("videoedit.verdict", Compared), clip, edits, metrics)


if __name__ == "__main__":
    main()
