"""Export the memory. Run: python -m stages.tomas.export_weights --profile ... --encoder ... --out ..."""

import click


@click.command()
@click.option("--profile", required=True, help="What the stage tomas-profile wrote.")
@click.option("--encoder", required=True, help="What the stage tomas-pretrain_encoder wrote.")
@click.option("--out", required=True)
def main(profile: str, encoder: str, out: str) -> None:
    from qwenlab.tomas.encoder import ResourceEncoderForPretraining
    from qwenlab.tomas.export import export
    from qwenlab.tomas.prepare import read_prepared

    export(ResourceEncoderForPretraining.from_pretrained(encoder), *read_prepared(profile), out)


if __name__ == "__main__":
    main()
