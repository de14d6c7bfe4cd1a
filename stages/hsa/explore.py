"""Let an agent explore, for phases 2 and 3. Run: python -m stages.hsa.explore --worlds data/hsa/worlds --out ..."""

import click


@click.command()
@click.option("--worlds", required=True, help="What the stage hsa-worlds wrote.")
@click.option("--out", required=True)
def main(worlds: str, out: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.hsa.explore import Explore, explore
    from qwenlab.hsa.model import Runtime
    from qwenlab.hsa.train import Phases
    from qwenlab.hsa.worlds import Files, Worlds

    settings = load("hsa.explore", Explore), load("hsa.worlds", Worlds), load("hsa.train", Phases)
    found = explore(*settings, load("hsa.runtime", Runtime), load("hsa.files", Files), worlds, out)
    click.echo(f"explored: {found}")


if __name__ == "__main__":
    main()
