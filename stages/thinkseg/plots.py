"""Plots of summaries and thinkers. Run: python -m stages.thinkseg.plots --metrics metrics/thinkseg"""

from pathlib import Path

import click


@click.command()
@click.option("--metrics", required=True, type=click.Path(path_type=Path), help="Folder of the arms' JSON files.")
def main(metrics: Path) -> None:
    from qwenlab.core.params import load_raw
    from qwenlab.thinkseg.plots import draw

    draw(metrics, list(load_raw("thinkseg.arms")))


if __name__ == "__main__":
    main()
