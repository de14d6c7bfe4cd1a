"""Write the trajectories. Run: python -m stages.hsa.worlds --out data/hsa/worlds"""

import click


@click.command()
@click.option("--out", required=True)
def main(out: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.hsa.worlds import Files, Worlds, write_worlds

    write_worlds(load("hsa.worlds", Worlds), load("hsa.files", Files), out)


if __name__ == "__main__":
    main()
