"""Train the thinker stand-in. Run: python -m stages.standins.omni --assets ... --out ... --metrics ..."""

import click


@click.command()
@click.option("--assets", required=True, help="Folder of photos for backgrounds.")
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON with the quality.")
def main(assets: str, out: str, metrics: str) -> None:
    from qwenlab.core.io import write_json
    from qwenlab.core.params import load
    from qwenlab.standins.omni import Recipe, train

    write_json(metrics, train(load("standins.omni", Recipe), assets, out))


if __name__ == "__main__":
    main()
