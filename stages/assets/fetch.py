"""Fetch pinned clips, photos and weights. Run: python -m stages.assets.fetch --out data/assets"""

import click


@click.command()
@click.option("--out", required=True, help="Folder; files already there with the right hash are kept.")
def main(out: str) -> None:
    from qwenlab.core import assets

    fetched = assets.fetch(out)
    click.echo(f"fetched {', '.join(fetched)}" if fetched else "all assets are in place")


if __name__ == "__main__":
    main()
