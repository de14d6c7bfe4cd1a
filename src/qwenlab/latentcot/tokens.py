"""The five tokens of latent reasoning, and what they stand for in a text."""

LATENT_PAD, LATENT_START, LATENT_END = "<abs_vis_token_pad>", "<abs_vis_token>", "</abs_vis_token>"
OBSERVATION_START, OBSERVATION_END = "<observation>", "</observation>"
SPECIAL = (LATENT_PAD, LATENT_START, LATENT_END, OBSERVATION_START, OBSERVATION_END)
PLACEHOLDER = LATENT_START + LATENT_END  # in data: here belongs the auxiliary image
VISION_BLOCK = "<|vision_start|><|image_pad|><|vision_end|>"
ASSISTANT = "<|im_start|>assistant\n"
STAGES = ("stage1-1", "stage1-2", "stage1-3")
FORMS = (*STAGES, "text", "pause", "plain")


def latent_block(latents: int) -> str:
    """`latents` pads between start and end; the model's own hidden states take the place of the pads' embeddings."""
    return LATENT_START + LATENT_PAD * latents + LATENT_END


def rewrite(text: str, form: str, latents: int) -> str:
    """The assistant's text as a stage reads it: what stands where the data has a placeholder.

    Args:
        form: stage1-1 shows the auxiliary image; stage1-2 the image and then the latents; stage1-3 and `pause` the
            latents (in `pause` they are a learned token); `text` nothing; `plain` nothing, and no observation tags.
    """
    block = latent_block(latents)
    here = {
        "stage1-1": VISION_BLOCK,
        "stage1-2": VISION_BLOCK + block,
        "stage1-3": block,
        "pause": block,
        "text": "",
        "plain": "",
    }[form]
    text = text.replace(PLACEHOLDER, here)
    return text.replace(OBSERVATION_START, "").replace(OBSERVATION_END, "") if form == "plain" else text


def add_tokens(model, tokenizer) -> None:
    """Give tokenizer and model the tokens, if they lack them; new rows are drawn like the rows there are."""
    import torch

    before = len(tokenizer)
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    table = model.get_input_embeddings().weight
    if len(tokenizer) > table.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if len(tokenizer) > before:
        with torch.no_grad():
            for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
                known = layer.weight[:before].float()
                rows = known.mean(0) + known.std(0) * torch.randn(len(tokenizer) - before, known.shape[1]).to(known)
                layer.weight[before : len(tokenizer)] = rows.to(layer.weight)


def token_ids(tokenizer) -> dict[str, int]:
    """Name -> id of every token that encoding and decoding look for.

    Raises:
        UserError: when the tokenizer lacks one: the checkpoint was not made by stage 1-1.
    """
    from qwenlab.core.errors import UserError

    names = (*SPECIAL, "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|im_end|>", "<|endoftext|>")
    found = dict(zip(names, tokenizer.convert_tokens_to_ids(list(names)), strict=True))
    vocabulary = tokenizer.get_vocab()
    if absent := [name for name in names if name not in vocabulary]:
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer has no {', '.join(absent)}; expected a checkpoint of stage1-1."
        )
    return found
