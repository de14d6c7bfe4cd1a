"""Make the thinker stand-in: a tiny `Qwen2_5OmniThinkerForConditionalGeneration` that watches and listens.

Run: dvc repro -f -s standin-omni (about 20 minutes).

Trained end to end from words alone, a model of this size hears but does not see (colour recall .53). What made it see:
a patch projection that begins as the whitened principal components of patches; Xavier's weights in the vision tower; a
warm-up in which each patch, and each token of four patches, says what fills it; mirror images; things in an order that
can be seen (left to right); and a loss that weighs content words more. Fixed phrases are single tokens.
"""

from pathlib import Path

import numpy as np
import torch

from qwenlab.core.io import atomic_dir
from qwenlab.core.seeding import seed_everything
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.standins.looking_back import look_back
from qwenlab.standins.loop import fit
from qwenlab.standins.omni_data import Watched, content_words, mirrored, patches, phrase_tokens, talk, watch_many
from qwenlab.standins.omni_watching import SPECIAL, Recipe, Watching, held_out_quality, sight_accuracy


def build_processor(recipe: Recipe, clips: list[Watched]):
    """A `Qwen2_5OmniProcessor` for small frames and short sounds."""
    from transformers import Qwen2_5OmniProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor, WhisperFeatureExtractor

    rng = np.random.default_rng(recipe.seed)
    texts = [text for clip in clips[:800] for text in talk(clip, rng)]
    plain = [text.replace(token, " ") for text in texts for token in ["<|", "|>"]]
    tokenizer = train_tokenizer(plain, recipe.vocab)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(SPECIAL.values())}, replace_extra_special_tokens=False
    )
    tokenizer.add_tokens([*content_words(), *phrase_tokens()])
    tokenizer._set_model_specific_special_tokens(SPECIAL)
    vision = {"patch_size": recipe.patch, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 56 * 56, "longest_edge": 64 * 64}
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **vision),
        video_processor=Qwen2VLVideoProcessor(size=size, **vision),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=recipe.mels, hop_length=recipe.hop, chunk_length=6, return_attention_mask=True
        ),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )


def build_model(recipe: Recipe, processor):
    """An untrained tiny model."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    tokenizer, ids = processor.tokenizer, processor.tokenizer.convert_tokens_to_ids
    part = recipe.hidden // recipe.heads // 2
    section = [part - 2 * (part // 3), part // 3, part // 3]
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": recipe.mels, "d_model": 64, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 128, "output_dim": recipe.hidden, "n_window": 50, "max_source_positions": 300,
        },
        vision_config={
            "depth": recipe.vision_layers, "hidden_size": recipe.vision_hidden, "num_heads": 4,
            "intermediate_size": 4 * recipe.vision_hidden, "patch_size": recipe.patch, "temporal_patch_size": 2,
            "spatial_merge_size": 2, "window_size": 64, "out_hidden_size": recipe.hidden,
            "fullatt_block_indexes": list(range(recipe.vision_layers)),
        },
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": recipe.hidden, "intermediate_size": recipe.mlp,
            "num_hidden_layers": recipe.layers, "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.heads, "max_position_embeddings": 2048, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section},
            "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        },
        audio_token_index=ids(SPECIAL["audio_token"]), image_token_index=ids(SPECIAL["image_token"]),
        video_token_index=ids(SPECIAL["video_token"]), audio_start_token_id=ids(SPECIAL["audio_bos_token"]),
        audio_end_token_id=ids(SPECIAL["audio_eos_token"]), vision_start_token_id=ids(SPECIAL["vision_bos_token"]),
        vision_end_token_id=ids(SPECIAL["vision_eos_token"]), user_token_id=ids("user"), tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    look_back(model.model.language_model)
    for module in model.model.visual.modules():  # the library's 0.02 is too little to tell patches apart at this width
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return model


def whiten(model, frames: torch.Tensor, recipe: Recipe, processor) -> None:
    """Set the patch projection to whitened principal components of the patches of `frames` `[B, T, H, W, 3]`."""
    video = processor.video_processor
    flat = patches(frames, recipe.patch, video.image_mean, video.image_std)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T.double()))
    top = vectors[:, -recipe.vision_hidden :].T / (values[-recipe.vision_hidden :].clamp_min(1e-4) ** 0.5)[:, None]
    weight = model.model.visual.patch_embed.proj.weight
    with torch.no_grad():
        weight.copy_(top.float().reshape(weight.shape))


README = """# Stand-in for PhilipC/HumanOmniV2 (the thinker of thinkseg)

A tiny `Qwen2_5OmniThinkerForConditionalGeneration` ({millions:.2f} M parameters) with a `Qwen2_5OmniProcessor`, loaded
by `from_pretrained`. It stands for the published checkpoint where none can be had, so that the same code runs on a
laptop: it watches 64 px clips of moving shapes at two frames a second, listens to their tone, and writes
`<context>..</context><think>..</think><answer>..</answer>` about a question. It knows nothing else.

Made by `dvc repro -f -s standin-omni` from the recipe `standins.omni` in params.yaml. Trained end to end from words
alone, a model of this size hears but does not see. Here the patch projection begins as whitened principal components,
the other weights of the vision tower as Xavier's; it first learns what fills each of its patches, and each of the cells
of four that are a token ({recipe.sight_steps} steps), and then, beside that, the model learns to talk ({recipe.steps}
steps; content words weigh {recipe.content_weight:g} times as much). Things are named from left to right.
{recipe.clips} clips and their mirror images were watched, over other photos than those of the held-out clips. Weights
are fp16.

Held out ({recipe.test_clips} clips): format {quality[format]:.3f}, tone {quality[tone]:.3f}, recall of colours
{quality[color_recall]:.3f}, of things {quality[object_recall]:.3f} (precision {quality[object_precision]:.3f}), of
size, place and motion {quality[attribute_recall]:.3f}.
"""


def train(recipe: Recipe, assets: str | Path, out: str | Path) -> dict[str, float]:
    """Train, save model and processor to `out` in fp16, and return the quality on held-out clips."""
    seed_everything(recipe.seed)
    cell = 2 * recipe.patch
    clips = watch_many(recipe.clips, recipe.seed + 1000, assets, recipe.photos, cell)
    clips += [mirrored(clip) for clip in clips]
    processor = build_processor(recipe, clips)
    model = build_model(recipe, processor)
    watching = Watching(recipe, model, processor, clips)
    whiten(model, watching.frames[:400], recipe, processor)
    trained = [*model.model.visual.parameters(), *watching.heads.parameters()]
    fit(trained, watching.sight, recipe.sight_steps, recipe.sight_lr, "sight")
    test = watch_many(recipe.test_clips, recipe.seed + 2000, assets, recipe.test_photos, cell)
    held_out = Watching(recipe, model, processor, test)
    held_out.heads = watching.heads
    print(f"cells told right, held out: {sight_accuracy(held_out)}", flush=True)
    trained = [*model.parameters(), *watching.heads.parameters()]
    fit(trained, watching.loss, recipe.steps, recipe.lr, "thinker")
    model.eval()
    sight = {f"sight_{name}": float(f"{value:.4g}") for name, value in sight_accuracy(held_out).items()}
    quality = {**held_out_quality(held_out), **sight}
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    with atomic_dir(out) as folder:
        model.to(torch.float16).save_pretrained(folder)
        processor.save_pretrained(folder)
        text = README.format(recipe=recipe, quality=quality, millions=millions)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return quality
