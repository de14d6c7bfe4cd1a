"""Heads that begin by looking back: what copying needs, and tiny models do not find by themselves in short trainings.

Copying from context takes two heads in a row (Olsson et al. 2022, "In-context learning and induction heads"): one that
notes at each token what stood before it, and one above it that finds where the present token stood before, and takes
what came next. The second is learned in minutes once the first is there.
"""

import torch


@torch.no_grad()
def look_back(decoder, heads: int = 2, scale: float = 4.0) -> None:
    """Let the first heads of the first layer of a Qwen2 decoder begin by looking one, two, ... places back.

    The biases of query and key say so whatever the tokens are: they differ by the rotation of that many positions.

    Args:
        decoder: a `Qwen2Model`, or the language model of a thinker.
    """
    attention, frequencies = decoder.layers[0].self_attn, decoder.rotary_emb.inv_freq
    for head in range(heads):
        rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        angles = (head + 1) * frequencies
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight[rows] *= 0.1
        attention.q_proj.bias[rows] = scale * torch.cat([torch.ones_like(angles), torch.zeros_like(angles)])
        attention.k_proj.bias[rows] = scale * torch.cat([angles.cos(), angles.sin()])
