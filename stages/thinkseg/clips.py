"""Procedural data sets of videos with questions. Run: python -m stages.thinkseg.clips --assets ... --out ..."""

import click


@click.command()
@click.option("--assets", required=True, help="Folder of photos for backgrounds.")
@click.option("--out", required=True)
def main(assets: str, out: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.thinkseg.sources import Clips, write_sources

    write_sources(load("thinkseg.clips", Clips), assets, out)


if __name__ == "__main__":
    main()
