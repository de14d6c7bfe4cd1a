"""Sample records from the data sets of the profile. Run: python -m stages.thinkseg.sample --out ..."""

import click


@click.command()
@click.option("--out", required=True)
def main(out: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.thinkseg.sample import Sample, run

    run(load("thinkseg.sample", Sample), out)


if __name__ == "__main__":
    main()
