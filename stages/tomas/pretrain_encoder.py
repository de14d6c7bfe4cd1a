"""Phase 0: train the resource encoder. Run: python -m stages.tomas.pretrain_encoder --profile ... --out ..."""

import click


@click.command()
@click.option("--profile", required=True, help="What the stage tomas-profile wrote.")
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON: loss, and how well each field is reconstructed.")
def main(profile: str, out: str, metrics: str) -> None:
    from qwenlab.core.params import load
    from qwenlab.tomas.model import Runtime
    from qwenlab.tomas.prepare import read_prepared
    from qwenlab.tomas.pretrain import Pretrain, run

    run(load("tomas.pretrain_encoder", Pretrain), load("tomas.runtime", Runtime), *read_prepared(profile), out, metrics)


if __name__ == "__main__":
    main()
