"""Cut the evaluation clip into frames and edge pictures. Run: python -m stages.videoedit.prepare ..."""

import click


@click.command()
@click.option("--assets", required=True, help="Folder with the clip.")
@click.option("--out", required=True, help="Gets frames/ (T pictures) and edges/ (T - 1).")
def main(assets: str, out: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.videoedit.experiment import Prepare, prepare

    prepare(load("videoedit.prepare", Prepare), assets, out)


if __name__ == "__main__":
    main()
