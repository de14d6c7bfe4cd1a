"""Plots of semantic attention. Run: python -m stages.hsa.plots --worlds ... --models data/hsa/train --metrics ..."""

from pathlib import Path

import click


@click.command()
@click.option("--worlds", required=True, type=click.Path(path_type=Path), help="What the stage hsa-worlds wrote.")
@click.option("--models", required=True, type=click.Path(path_type=Path), help="Folder of the arms' models.")
@click.option("--metrics", required=True, type=click.Path(path_type=Path), help="Folder of the arms' JSON files.")
def main(worlds: Path, models: Path, metrics: Path) -> None:
    """Write recall.png and attention.png."""
    from qwenlab.core.params import load, load_raw
    from qwenlab.hsa.model import Runtime
    from qwenlab.hsa.plots import Shown, draw_attention, draw_recall

    section = load_raw("hsa")
    draw_recall(metrics / "recall.png", metrics, list(section["arms"]))
    pair = [section["verdict"]["control"], section["verdict"]["treatment"]]
    chosen = {arm: models / arm / f"seed{section['seeds'][0]}" for arm in pair}
    settings = load("hsa.plots", Shown), load("hsa.runtime", Runtime)
    draw_attention(metrics / "attention.png", chosen, worlds / "test_1x.jsonl", *settings)


if __name__ == "__main__":
    main()
