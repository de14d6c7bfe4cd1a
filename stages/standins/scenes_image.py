"""Train the scene stand-in. Run: python -m stages.standins.scenes_image --out ... --metrics ..."""

import click


@click.command()
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON with held-out quality.")
def main(out: str, metrics: str) -> None:
    import torch

    from qwenlab.core.io import write_json
    from qwenlab.core.params import load
    from qwenlab.standins.scenes_image import Recipe, train

    torch.set_num_threads(1)  # small layers: a second thread costs more than it brings, and sums in another order
    write_json(metrics, train(load("standins.scenes_image", Recipe), out))


if __name__ == "__main__":
    main()
