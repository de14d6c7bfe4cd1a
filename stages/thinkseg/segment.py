"""Segment the held-out clips on one arm. Run: python -m stages.thinkseg.segment oracle --records ... --metrics ..."""

from pathlib import Path

import click


@click.command()
@click.argument("arm")
@click.option("--records", required=True, type=click.Path(path_type=Path), help="What the stage thinkseg-sample wrote.")
@click.option("--phrases", required=True, type=click.Path(path_type=Path), help="Where the arm's phrases come from.")
@click.option("--standin", required=True, type=click.Path(path_type=Path), help="Quality of the SAM3 stand-in, JSON.")
@click.option("--metrics", required=True, type=click.Path(path_type=Path), help="Folder for <arm>.json and <arm>.csv.")
def main(arm: str, records: Path, phrases: Path, standin: Path, metrics: Path) -> None:
    from qwenlab.core.params import load
    from qwenlab.thinkseg.sam3 import Sam3Params
    from qwenlab.thinkseg.segment import Segmenter
    from qwenlab.thinkseg.segment_eval import SegmentParams, run

    segmenter = Segmenter.load(load("thinkseg.sam3", Sam3Params))
    run(load("thinkseg.segment", SegmentParams), segmenter, arm, records, phrases, standin, metrics)


if __name__ == "__main__":
    main()
