"""The thinker that watches: what it is shown, and the real classes at tiny and at full size."""

import numpy as np
import pytest
import torch

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json
from qwenlab.thinkseg.clips import make_clip, write_clip
from qwenlab.thinkseg.omni import OmniThinker, Thinker, sampled
from qwenlab.thinkseg.omni_prompt import OPENING, chat_text
from qwenlab.thinkseg.records import Record
from qwenlab.thinkseg.sound import read_sound
from qwenlab.thinkseg.video import write_video
from qwenlab.thinkseg.vocabulary import MOTIONS

OTHER = {"left": "right", "right": "left"}
THINKER = Thinker(
    model="none", device="cpu", dtype="float32", processes=1, splits=["test"], batch=2, max_new_tokens=6, fps=2.0,
    max_frames=16, pixels=4096,
)  # fmt: skip


@pytest.fixture(scope="module")
def recipe():
    from qwenlab.standins.omni_watching import Recipe

    return Recipe(
        seed=0, hidden=64, layers=1, heads=2, mlp=32, vocab=400, patch=8, vision_hidden=32, vision_layers=1, mels=32,
        hop=480, clips=6, test_clips=2, photos=[], test_photos=[], sight_steps=1, sight_lr=0.001, steps=1, batch=2,
        lr=0.001, sight_weight=0.5, content_weight=3.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def watching(recipe):
    from qwenlab.standins.omni import build_model, build_processor
    from qwenlab.standins.omni_data import watch
    from qwenlab.standins.omni_watching import Watching

    torch.manual_seed(0)
    clips = [watch(source, 1, n, {}, 16) for n in range(2) for source in ("drift", "crossing", "crowd")]
    processor = build_processor(recipe, clips)
    return Watching(recipe, build_model(recipe, processor).eval(), processor, clips)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips")
    for index in range(2):
        write_clip(make_clip("drift", 5, index), path)
    write_video(path / "silent.mp4", iter(make_clip("drift", 5, 9).frames), 8)
    write_video(path / "one.mp4", iter(np.zeros((1, 64, 64, 3), np.uint8)), 8)
    write_video(path / "odd.mp4", iter(np.zeros((9, 63, 41, 3), np.uint8)), 8)
    return path


def record(path) -> Record:
    return Record(id="x", source="s", video=str(path), question="Where is the red circle at first?")


def test_two_frames_a_second_are_seen(folder):
    frames, rate = sampled(folder / "drift-00000.mp4", 2.0, 16)
    assert len(frames) == 6 and rate == pytest.approx(2.0)


def test_a_long_video_is_seen_evenly(folder):
    frames, rate = sampled(folder / "drift-00000.mp4", 8.0, 4)
    assert len(frames) == 4 and rate == pytest.approx(8 * 3 / 23)


def test_a_video_of_one_frame_shows_it_twice(folder):
    frames, _ = sampled(folder / "one.mp4", 2.0, 16)
    assert len(frames) == 2 and np.array_equal(*frames)


def test_a_corrupt_video_is_one_sentence(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"not a video at all")
    with pytest.raises(UserError, match=r"x\.mp4"):
        sampled(tmp_path / "x.mp4", 2.0, 16)
    with pytest.raises(UserError, match=r"x\.mp4"):
        read_sound(tmp_path / "x.mp4")


def test_sound_is_mono_at_16_khz(folder):
    sound = read_sound(folder / "drift-00000.mp4")
    assert sound is not None and sound.dtype == np.float32 and abs(len(sound) / 16000 - 3) < 0.2


def test_a_silent_video_has_no_sound_and_no_word_of_it(folder):
    assert read_sound(folder / "silent.mp4") is None
    assert "AUDIO" in chat_text("Q?", [], True) and OPENING in chat_text("Q?", [], True)
    assert "AUDIO" not in chat_text("Q?", [], False) and OPENING not in chat_text("Q?", [], False)


def test_the_model_thinks_about_any_mix_of_videos(watching, folder):
    thinker = OmniThinker(THINKER, watching.model, watching.processor)
    names = ("drift-00000", "silent", "one", "odd")
    texts = thinker([record(folder / f"{name}.mp4") for name in names])
    assert len(texts) == 4


def test_patches_of_the_training_are_those_of_the_processor(watching):
    clip = watching.clips[0]
    inputs = watching.processor(
        text=[chat_text("Q?", [], True)], videos=[clip.frames.transpose(0, 3, 1, 2)], audio=[clip.sound],
        return_tensors="pt", videos_kwargs={"size": {"shortest_edge": 3136, "longest_edge": 4096},
        "do_sample_frames": False, "fps": 2.0, "cap_pixels_per_frame": False},
    )  # fmt: skip
    picked = np.array([0])
    torch.testing.assert_close(watching.pixels(picked), inputs["pixel_values_videos"])
    ours, _ = watching.inputs(picked, [(chat_text("Q?", [], True), "")])
    assert ours["input_ids"][0, :-1].tolist() == inputs["input_ids"][0].tolist()


def test_dense_labels_say_what_fills_a_cell():
    from qwenlab.standins.omni_data import HEADS, dense_labels

    clip = make_clip("drift", 2, 4)
    labels = dense_labels(clip, 16)
    assert labels.shape == (4, 3, 16)
    colors = {HEADS["color"][value - 1] for value in np.unique(labels[0]) if value}
    assert colors and colors <= {thing.color for thing in clip.things}


def test_a_mirrored_clip_is_what_its_mirrored_frames_show():
    from qwenlab.standins.omni_data import HEADS, mirrored, watch

    clip = watch("crowd", 3, 1, {}, 16)
    turned = mirrored(clip)
    assert np.array_equal(turned.frames, clip.frames[:, :, ::-1])
    assert sorted(t.color for t in turned.things) == sorted(t.color for t in clip.things)
    assert [t.color for t in turned.things] == [t.color for t in clip.things][::-1]
    motion = list(HEADS).index("motion")
    for one, other, side in ((clip.labels, turned.labels, 4), (clip.fine, turned.fine, 8)):
        one, other = (labels.reshape(4, 3, side, side) for labels in (one, other))
        assert np.array_equal(one[0], other[0, :, :, ::-1])
        swapped = {0: 0, **{1 + i: 1 + MOTIONS.index(OTHER.get(m, m)) for i, m in enumerate(MOTIONS)}}
        assert np.array_equal(np.vectorize(swapped.get)(one[motion]), other[motion, :, :, ::-1])
    again = mirrored(turned)
    assert again.things == clip.things and np.array_equal(again.fine, clip.fine)


def test_patch_labels_come_in_the_order_of_the_vision_towers_patches(watching):
    """The patch projection's inputs, averaged, and the labels must speak of the same places."""
    clip = watching.clips[0]
    marked = torch.zeros_like(watching.frames[:1])
    place = np.argwhere(clip.fine[0, 0].reshape(8, 8))[0]
    y, x = (int(value) * 8 for value in place)
    marked[:, :, y : y + 8, x : x + 8] = 255
    kept, watching.frames = watching.frames, marked
    try:
        bright = watching.pixels(np.array([0]))[:64].mean(1)
    finally:
        watching.frames = kept
    assert watching.fine[0, 0, 0, int(bright.argmax())] == clip.fine[0, 0].reshape(8, 8)[tuple(place)] > 0
    window = watching.model.config.vision_config.window_size
    assert window >= 64  # one window: patches are not put in another order


def test_the_loss_falls_on_one_batch(watching):
    torch.manual_seed(0)
    picked = np.arange(2)
    watching.pick = lambda: picked
    optimiser = torch.optim.AdamW([*watching.model.parameters(), *watching.heads.parameters()], lr=0.01)
    losses = []
    for step in range(6):
        loss = watching.loss(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_full_thinker_has_the_published_shapes():
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    config = Qwen2_5OmniThinkerConfig(
        vision_config={"hidden_size": 1280, "out_hidden_size": 3584, "intermediate_size": 3420, "num_heads": 16},
        text_config={"tie_word_embeddings": False},
    )
    with torch.device("meta"):
        model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    assert model.lm_head.weight.shape == (152064, 3584)
    assert model.model.audio_tower.conv1.weight.shape == (1280, 128, 3)
    assert model.model.visual.patch_embed.proj.weight.shape == (1280, 3, 2, 14, 14)
    assert 8e9 < sum(p.numel() for p in model.parameters()) < 10e9


def test_the_stored_stand_in_is_small_and_its_readme_says_what_was_measured(root):
    folder = root / "data/standins/omni"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6
    stored, words = read_json(root / "metrics/standins/omni.json"), (folder / "README.md").read_text()
    assert stored["format"] >= 0.95 and stored["tone"] >= 0.95
    assert stored["color_recall"] >= 0.9 and stored["object_recall"] >= 0.8
    for name in ("color_recall", "object_recall", "object_precision", "attribute_recall"):
        assert f"{stored[name]:.3f}" in words
