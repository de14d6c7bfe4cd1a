"""Write the report of all systems. Run: python -m stages.report --out report"""

from pathlib import Path

import click


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Replaced as a whole.")
def main(out: Path) -> None:
    """Write index.html and copy the pictures beside it."""
    from qwenlab.core.report import build

    click.echo(f"report: {build(out)}")


if __name__ == "__main__":
    main()
