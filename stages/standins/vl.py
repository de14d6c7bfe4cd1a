"""Train the vision-language stand-in. Run: python -m stages.standins.vl --out ... --metrics ..."""

import click


@click.command()
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON with the quality.")
def main(out: str, metrics: str) -> None:
    from qwenlab.core.io import write_json
    from qwenlab.core.params import load
    from qwenlab.standins.vl import train
    from qwenlab.standins.vl_build import Recipe

    write_json(metrics, train(load("standins.vl", Recipe), out))


if __name__ == "__main__":
    main()
