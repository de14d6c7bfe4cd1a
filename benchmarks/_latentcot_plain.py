"""The plain ways that benchmarks/latentcot.py measures against, and the tests compare with: two passes a sample, and
decoding one by one. As published code does it (Monet), without its defects."""

import torch

from qwenlab.latentcot import latents as L
from qwenlab.latentcot.ready import Ready, collator


def in_double(model):
    """The model in float64, its norms too: as they come, they round to float32, which hides an exact comparison."""

    def forward(norm, hidden: torch.Tensor) -> torch.Tensor:
        return norm.weight * hidden * (hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()

    for module in model.model.language_model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = forward.__get__(module)
    return model.double()


def latent_pass(model, batch: dict, block: int, steps: int, norm: str) -> list[torch.Tensor]:
    """The latents of one sample, each from a forward over everything before; inputs detached, as in a first pass."""
    embeds, mask = L.embed(model, batch["ids"], batch["features"]), batch["mask"]
    fed: list[torch.Tensor] = []
    found: list[torch.Tensor] = []
    for k in range(steps):
        end = block + k
        inputs = torch.cat([embeds[:, :block], *[one[:, None] for one in fed]], 1)
        hidden = model.model.language_model(
            inputs_embeds=inputs, position_ids=batch["positions"][..., :end], use_cache=False,
            attention_mask=L.additive(mask[:, :end, :end], inputs.dtype),
        ).last_hidden_state  # fmt: skip
        found.append(L.scaled(hidden[:, -1], model, norm))
        fed.append(found[-1].detach())
    return found


def two_pass(model, ready: Ready, stage: str, method, teacher: dict, weight: float, direct: bool, norm: str = "none"):
    """Losses of a batch, and gradients left in the model: two passes for one sample after the other.

    The second pass has the latents put in as leaves; their gradients go back into the first pass.
    """
    collate = collator(ready, stage, method, teacher)
    batches = [collate([sample]) for sample in ready.encoded]
    total = sum(batch["weight"][:, 1:].sum() for batch in batches)
    # As many teacher positions count as there are in the whole batch: the alignment is their mean.
    positions = sum(batch["teacher"].shape[1] for batch in batches)
    ce_sum, align_sum = torch.zeros(()), torch.zeros(())
    for batch in batches:
        blocks = batch["blocks"].tolist()
        first = latent_pass(model, batch, blocks[0], method.latents, norm)
        leaves = [z.detach().requires_grad_() for z in first]
        embeds = L.embed(model, batch["ids"], batch["features"])
        at = torch.arange(blocks[0], blocks[0] + method.latents)
        put = embeds.index_copy(1, at, torch.stack(leaves, 1))
        out = model.model.language_model(
            inputs_embeds=put, position_ids=batch["positions"], use_cache=False, output_hidden_states=True,
            attention_mask=L.additive(batch["mask"], embeds.dtype),
        )  # fmt: skip
        share = float(batch["weight"][:, 1:].sum()) / float(total)
        ce = L.cross_entropy(model, out.last_hidden_state, batch["ids"], batch["weight"]) * share
        where = batch["latent" if stage == "stage1-3" else "observed"]
        part = batch["teacher"].shape[1] / positions
        align = L.alignment(list(out.hidden_states), where, batch["teacher"], method.first_layer) * part
        grads = torch.autograd.grad(ce + weight * align, leaves, retain_graph=True)
        proxy = sum((z * g).sum() for z, g in zip(first, grads, strict=True))
        (ce + (weight * align if direct else 0) + proxy).backward()
        ce_sum, align_sum = ce_sum + ce.detach(), align_sum + align.detach()
    return ce_sum, align_sum
