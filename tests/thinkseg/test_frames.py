"""The pictures: clips are not chosen by how they went, and both files are complete."""

import json
from pathlib import Path

import pytest

from qwenlab.core.params import load
from qwenlab.thinkseg.clips import make_clip, write_clip
from qwenlab.thinkseg.frames import AT, choose, draw
from qwenlab.thinkseg.records import Record, read_records
from qwenlab.thinkseg.sam3 import Sam3Params
from qwenlab.thinkseg.segment import Segmenter
from qwenlab.thinkseg.video import video_info


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder, records, rows = tmp_path_factory.mktemp("sample"), [], []
    for source, indices in (("drift", range(4)), ("crossing", range(1))):
        for index in indices:
            clip = make_clip(source, 0, index)
            path = write_clip(clip, folder)
            record = Record(id=clip.clip_id, source=source, video=str(path), question="Where is it?", split="test")
            records.append(record)
            rows.append({"id": record.id, "seed": 0, "sam3_phrases": [thing.phrase for thing in clip.things]})
    (folder / "records.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    (folder / "scripted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_first_clip_of_each_source_with_two_things_is_shown(sample: Path):
    chosen = choose(read_records(sample / "records.jsonl"))
    assert [record.source for record, _ in chosen] == ["drift", "crossing"]
    first = next(i for i in range(4) if len(make_clip("drift", 0, i).things) > 1)
    assert chosen[0][0].id == f"drift-{first:05d}"


def test_a_strip_and_a_film_with_sound_are_drawn(sample: Path, root: Path, tmp_path: Path):
    from PIL import Image

    params = load("thinkseg.sam3", Sam3Params, root)
    segmenter = Segmenter.load(params.model_copy(update={"model": str(root / "data/standins/sam3")}))
    draw(segmenter, sample, sample, tmp_path)
    with Image.open(tmp_path / "segments.png") as strip:
        assert strip.width > len(AT) * 128 and strip.height >= 6 * 128
    film = video_info(tmp_path / "mask_video.mp4")
    assert film.has_sound and film.frames == 24
