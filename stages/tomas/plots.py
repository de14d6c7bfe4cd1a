"""Plots of the planners. Run: python -m stages.tomas.plots --memory ... --metrics metrics/tomas"""

from pathlib import Path

import click


@click.command()
@click.option("--memory", required=True, help="What the stage tomas-export_weights wrote.")
@click.option("--metrics", required=True, type=click.Path(path_type=Path), help="Folder of the arms' CSV files.")
def main(memory: str, metrics: Path) -> None:
    from qwenlab.core.params import load_raw
    from qwenlab.tomas.export import read_memory
    from qwenlab.tomas.plots import draw

    draw(read_memory(memory), metrics, list(load_raw("tomas.arms")))


if __name__ == "__main__":
    main()
