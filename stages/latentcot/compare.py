"""The latent arm against every other, with intervals. Run: python -m stages.latentcot.compare --metrics ..."""

import click


@click.command()
@click.option("--metrics", required=True, help="Folder of the arms' CSV files.")
def main(metrics: str) -> None:
    from qwenlab.latentcot.compare import run

    run(metrics)


if __name__ == "__main__":
    main()
