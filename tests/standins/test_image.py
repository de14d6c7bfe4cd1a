"""The image stand-in: its training code, and what the stored one can do."""

import json
from pathlib import Path

import pytest
import torch

from qwenlab.core.media import center_crop, read_video, to_tensor
from qwenlab.core.params import load
from qwenlab.standins import image, image_data, image_dit, image_vae
from qwenlab.standins.image_data import ClipMaker


@pytest.fixture(scope="module")
def recipe(root: Path) -> image.Recipe:
    return load("standins.image", image.Recipe, root)


def test_training_never_reads_the_evaluation_or_the_tuning_clip(assets, monkeypatch):
    read = []
    monkeypatch.setattr(image_data, "read_video", lambda p: read.append(Path(p).name) or read_video(p))
    monkeypatch.setattr(image_data, "read_image", lambda p: read.append(Path(p).name) or _photo())
    ClipMaker(assets, 96, 64, 0)
    assert "bikes.mp4" in read
    assert not {"bigbuckbunny.mp4", "carphone.mp4"} & set(read)


def _photo():
    from PIL import Image

    return Image.new("RGB", (300, 300), "red")


def test_clips_follow_from_the_seed_and_stay_in_range(assets):
    a, b = (ClipMaker(assets, 96, 64, 5) for _ in range(2))
    for _ in range(6):
        clip = a.clip(3)
        assert clip.shape == (3, 3, 64, 96)
        assert clip.min() >= 0 and clip.max() <= 1
        assert torch.equal(clip, b.clip(3))


def test_a_tiny_recipe_trains_saves_and_loads_again(assets, tmp_path, recipe):
    small = recipe.model_copy(
        update={
            "vae_steps": 2, "vae_batch": 2, "clips": 3, "clip_length": 3, "steps": 10, "batch": 2, "roll_outs": 2,
            "base_dim": 8, "layers": 1, "width": 64, "height": 32, "vae_clips": 4,
        }
    )  # fmt: skip
    quality = image.train(small, assets, tmp_path / "image")
    assert set(quality) == {"velocity_mse", "vae_psnr_carphone", "vae_psnr_bigbuckbunny"}
    assert "Stand-in for Qwen/Qwen-Image-Edit-2509" in (tmp_path / "image" / "README.md").read_text()
    from diffusers import QwenImageEditPlusPipeline

    pipe = QwenImageEditPlusPipeline.from_pretrained(tmp_path / "image", dtype=torch.float32)
    assert len(pipe.vae.config.latents_std) == small.z_dim


def test_the_training_path_sees_what_the_pipeline_sees(pipe):
    """Prompt embeddings and velocity of the training code equal those inside the stock pipeline."""
    frame = torch.rand(1, 3, 64, 96)
    edge = image_dit.edge_pictures(frame)
    embeds, mask = image_dit.embed_prompts(pipe, [image_dit.WARP_PROMPTS[0]], edge, frame)
    from qwenlab.core.media import to_image

    theirs, _ = pipe.encode_prompt(image_dit.WARP_PROMPTS[0], [to_image(edge), to_image(frame)], "cpu")
    assert mask.all()
    assert torch.allclose(embeds, theirs, atol=1e-5)


def stored(root: Path) -> Path:
    return root / "data" / "standins" / "image"


def test_the_stored_files_are_small_and_say_what_they_stand_for(root: Path):
    sizes = [path.stat().st_size for path in stored(root).rglob("*") if path.is_file()]
    assert max(sizes) <= 8 * 2**20
    assert "stands for" in (stored(root) / "README.md").read_text()


def test_every_class_is_the_published_pipelines(root: Path):
    index = json.loads((stored(root) / "model_index.json").read_text())
    assert index["_class_name"] == "QwenImageEditPlusPipeline"
    assert index["vae"][1] == "AutoencoderKLQwenImage"
    assert index["transformer"][1] == "QwenImageTransformer2DModel"
    assert index["text_encoder"][1] == "Qwen2_5_VLForConditionalGeneration"
    assert index["scheduler"][1] == "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize("clip", ["carphone", "bigbuckbunny"])
def test_the_stored_autoencoder_reaches_25_db_on_clips_it_never_saw(pipe, assets, recipe, clip):
    assert image_vae.psnr(pipe.vae, image.held_out_frames(assets, clip, recipe)) >= 25.0


def test_unused_temporal_taps_are_zero_so_that_a_video_decodes_frame_by_frame(pipe):
    latents = torch.randn(1, pipe.vae.config.z_dim, 3, 4, 4)
    with torch.no_grad():
        video = pipe.vae.decode(latents).sample
        single = pipe.vae.decode(latents[:, :, 2:]).sample
    assert torch.allclose(video[:, :, 2:], single, atol=1e-4)


@pytest.fixture(scope="module")
def carphone(assets):
    return [center_crop(frame, 96, 64) for frame in read_video(assets / "carphone.mp4", 0, 6, 9)]


def roll_out(pipe, runtime, drawing, frames, edge_of, count):
    from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
    from qwenlab.videoedit.pipeline import FrameEditor

    editor = FrameEditor(pipe, runtime, drawing, LossGuidanceConfig(enabled=False), LossSizes(), frames[0])
    drawn = [frames[0]]
    for frame in frames[1 : count + 1]:
        edge = edge_of(frame)
        drawn.append(editor.draw(edge, drawn[-1], to_tensor(edge)[:, :1], 0)[0])
    return [to_tensor(frame) for frame in drawn]


def test_an_unguided_roll_out_over_nine_frames_does_not_drift_to_garbage(pipe, runtime, carphone, root):
    """Contrast stays near the clip's own, and the last frame is closer to the truth than a plain grey one."""
    from qwenlab.videoedit.pipeline import Drawing
    from qwenlab.videoedit.source import edge_picture

    drawing = load("videoedit.edit", Drawing, root)
    last = roll_out(pipe, runtime, drawing, carphone, edge_picture, 8)[-1]
    truth = to_tensor(carphone[-1])
    assert 0.6 < (last.std() / truth.std()).item() < 1.4
    assert (last - truth).square().mean() < (truth - truth.mean()).square().mean()


def test_the_prompt_decides_what_is_drawn(pipe, runtime, drawing, carphone):
    """Told to keep picture 2, the model stays nearer to it than when told to deform it to another frame's edges."""
    from qwenlab.videoedit.source import edge_picture

    ten = {"num_inference_steps": 10, "true_cfg_scale": 1.0}
    pair = [carphone[0], carphone[5]]
    errors = {}
    for prompt in (image_dit.WARP_PROMPTS[0], image_dit.KEEP_PROMPTS[0]):
        told = drawing.model_copy(update={**ten, "prompt": prompt})
        drawn = roll_out(pipe, runtime, told, pair, edge_picture, 1)[1]
        errors[prompt] = (drawn - to_tensor(pair[0])).square().mean().item()
    assert errors[image_dit.KEEP_PROMPTS[0]] < 0.95 * errors[image_dit.WARP_PROMPTS[0]]


def test_guidance_scale_and_negative_prompt_matter(pipe, runtime, drawing, carphone):
    from qwenlab.videoedit.source import edge_picture

    def drawn(**changes):
        told = drawing.model_copy(update={"prompt": image_dit.WARP_PROMPTS[0], "true_cfg_scale": 2.0, **changes})
        return roll_out(pipe, runtime, told, carphone, edge_picture, 1)[1]

    base = drawn()
    assert not torch.equal(base, drawn(true_cfg_scale=1.0))
    assert not torch.equal(base, drawn(negative_prompt=image_dit.KEEP_PROMPTS[1]))
