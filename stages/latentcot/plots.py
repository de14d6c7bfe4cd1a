"""Plots of the arms. Run: python -m stages.latentcot.plots --metrics metrics/latentcot"""

from pathlib import Path

import click


@click.command()
@click.option("--metrics", required=True, type=click.Path(path_type=Path), help="Folder of the arms' files.")
def main(metrics: Path) -> None:
    from qwenlab.latentcot.plots import draw

    draw(metrics)


if __name__ == "__main__":
    main()
