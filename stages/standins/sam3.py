"""Train the SAM3 stand-in. Run: python -m stages.standins.sam3 --assets ... --out ... --metrics ..."""

import click


@click.command()
@click.option("--assets", required=True)
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON with held-out quality.")
def main(assets: str, out: str, metrics: str) -> None:
    from qwenlab.core.io import write_json
    from qwenlab.core.params import load
    from qwenlab.standins.sam3 import Recipe, train

    write_json(metrics, train(load("standins.sam3", Recipe), assets, out))


if __name__ == "__main__":
    main()
