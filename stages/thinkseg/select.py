"""Copy the metrics of the chosen arm, so that `dvc metrics diff` compares arms across experiments."""

from pathlib import Path

import click


@click.command()
@click.option("--metrics", required=True, type=click.Path(path_type=Path), help="Folder of <arm>.json and <arm>.csv.")
def main(metrics: Path) -> None:
    """Copy the arm named by `thinkseg.arm` to selected.json and selected.csv."""
    from qwenlab.core.accept import write_selected

    click.echo(f"selected: {write_selected('thinkseg', metrics)}")


if __name__ == "__main__":
    main()
