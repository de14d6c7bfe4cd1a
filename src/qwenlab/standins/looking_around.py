"""Heads that begin by looking around: what belongs together is said within a few words.

"A small red circle starts on the left and moves up": to learn that left and up are the red circle's, a token has to see
the words just before it and take the ones that matter. A new model looks everywhere alike.
"""

import torch


@torch.no_grad()
def look_around(decoder, layer: int, head: int, back: float = 4.0, scale: float = 1.5) -> None:
    """Let a head of a Qwen2 decoder begin with a soft window over about eight tokens, `back` places back on average.

    As in `looking_back`, the biases of query and key say so, here through the slower rotations alone; the weights stay
    as they are, so that what it takes within the window follows from the tokens.
    """
    attention, frequencies = decoder.layers[layer].self_attn, decoder.rotary_emb.inv_freq
    rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
    slow = ((frequencies < 0.4) & (frequencies > 0.04)).to(frequencies)
    angles = back * frequencies
    attention.q_proj.bias[rows] = scale * torch.cat([slow, torch.zeros_like(slow)])
    attention.k_proj.bias[rows] = scale * torch.cat([slow * angles.cos(), slow * angles.sin()])
