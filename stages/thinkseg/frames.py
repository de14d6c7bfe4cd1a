"""Draw a strip of segmented frames and a mask video. Run: python -m stages.thinkseg.frames --records ... --out ..."""

from pathlib import Path

import click


@click.command()
@click.option("--records", required=True, type=click.Path(path_type=Path), help="What the stage thinkseg-sample wrote.")
@click.option(
    "--summaries", required=True, type=click.Path(path_type=Path), help="The student's, by thinkseg-summarize."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the pictures.")
def main(records: Path, summaries: Path, out: Path) -> None:
    from qwenlab.core.params import load
    from qwenlab.thinkseg.frames import draw
    from qwenlab.thinkseg.sam3 import Sam3Params
    from qwenlab.thinkseg.segment import Segmenter

    draw(Segmenter.load(load("thinkseg.sam3", Sam3Params)), records, summaries, out)


if __name__ == "__main__":
    main()
