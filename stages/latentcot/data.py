"""Scene data in the seed's format, with vision features. Run: python -m stages.latentcot.data --out ..."""

import click


@click.command()
@click.option("--out", required=True)
def main(out: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.latentcot.checkpoint import Runtime
    from qwenlab.latentcot.scene_data import Data, run

    runtime = load("latentcot.runtime", Runtime)
    run(load("latentcot.data", Data), runtime.model, runtime, out)


if __name__ == "__main__":
    main()
