"""Judge the arms of thinkseg. Run: python -m stages.thinkseg.verdict --metrics metrics/thinkseg"""

from pathlib import Path

import click


@click.command()
@click.option("--metrics", required=True, type=click.Path(path_type=Path), help="Folder of <arm>.json and <arm>.csv.")
def main(metrics: Path) -> None:
    """Write verdict.json. A failed rule is shown and written, and the exit code is 0: sweeps go on."""
    from qwenlab.core.accept import write_verdict

    write_verdict("thinkseg", metrics)


if __name__ == "__main__":
    main()
