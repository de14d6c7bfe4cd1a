"""What the gather kernel and eviction save, side by side in one process. Run: make bench

- attention alone, forward and forward + backward, at 512 to 8192 tokens of which 5, 20 and 40% have no window: gather
  against stock causal SDPA (which has no semantics), SDPA with the float mask, and eager;
- the same inside a training step of a whole model;
- generation with and without eviction: keys in the cache, and tokens a second;
- on a GPU, if there is one: FlexAttention against causal SDPA, at 4k to 32k tokens.

Times are medians of interleaved runs and are shown as ratios. Writes benchmarks/hsa.md; `--smoke` runs the same code
in seconds and writes nothing.
"""

from collections.abc import Callable
from pathlib import Path

import click
import torch
from _timing import interleaved
from torch.nn.functional import scaled_dot_product_attention

from qwenlab.hsa.attention import HSA, HSAConfig, attach, detach, session
from qwenlab.hsa.semantics import GLOBAL, LANDMARK, NOISE
from qwenlab.hsa.sparse import flex_plan, gather_attention

HERE = Path(__file__).parent
CONFIG = HSAConfig(slope=(0.0, 0.001, 0.5), window=(None, None, 64))
HEADS, DIM = 8, 64


def typed(length: int, share: float, batch: int = 1) -> torch.Tensor:
    """Types `[B, L]`: a share of LANDMARK in runs of 8 tokens, as turns have them, the first of them GLOBAL."""
    generator = torch.Generator().manual_seed(0)
    runs = torch.rand(batch, -(-length // 8), generator=generator) < share
    types = torch.where(runs, LANDMARK, NOISE).repeat_interleave(8, dim=1)[:, :length].clone()
    types[:, :8] = GLOBAL
    return types


def trained(call: Callable[[], torch.Tensor], leaves: tuple[torch.Tensor, ...]) -> Callable[[], object]:
    """Forward and backward of what `call` returns."""

    def step():
        return torch.autograd.grad(call().sum(), leaves)

    return step


def kernels(length: int, share: float, repeats: int, dense: bool) -> list[str]:
    """Two lines of the table: forward, and forward + backward. `dense`: with the ways that build [L, L] scores."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, length, DIM, requires_grad=True) for _ in range(3))
    types, hsa = typed(length, share), HSA(CONFIG, HEADS, HEADS * DIM)
    places = torch.arange(length)

    def float_mask() -> torch.Tensor:
        causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        return hsa.mask(causal, types, places, places, torch.float32, boolean=False)

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "gather": lambda: gather_attention(q, k, v, types, hsa),
        "causal": lambda: scaled_dot_product_attention(q, k, v, is_causal=True),
    }
    if dense:
        ways["float mask"] = lambda: scaled_dot_product_attention(q, k, v, float_mask())
        ways["eager"] = lambda: torch.softmax(q @ k.transpose(2, 3) / DIM**0.5 + float_mask(), -1) @ v
    forward = {}
    for name, call in ways.items():

        def without_gradients(call=call):
            with torch.no_grad():
                return call()

        forward[name] = without_gradients
    both = {name: trained(call, (q, k, v)) for name, call in ways.items()}
    lines = []
    for what, runs in (("forward", forward), ("forward + backward", both)):
        seconds = interleaved(runs, repeats)
        base = seconds["gather"]
        ratios = [
            f"{seconds[name] / base:.2f}x" if name in seconds else "-" for name in ("causal", "float mask", "eager")
        ]
        lines.append(f"| {length} | {share:.0%} | {what} | {' | '.join(ratios)} | {base * 1e3:.0f} ms |")
    return lines


def model_of(layers: int, hidden: int):
    """A Qwen2 with random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=2048, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=16384, bos_token_id=None,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def training_step(length: int, share: float, repeats: int) -> str:
    """A whole step (forward, backward) of a 2-layer Qwen2 of width 512: stock against gather and sdpa with HSA."""
    ids = torch.randint(1, 2000, (1, length), generator=torch.Generator().manual_seed(1))
    models = {name: model_of(2, 512) for name in ("stock", "gather", "sdpa")}
    for name in ("gather", "sdpa"):
        attach(models[name], CONFIG, name)
    types = typed(length, share)

    def step(name: str) -> Callable[[], object]:
        more = {} if name == "stock" else {"semantic_ids": types}

        def run():
            models[name].zero_grad(set_to_none=True)
            models[name](input_ids=ids, labels=ids, use_cache=False, **more).loss.backward()

        return run

    seconds = interleaved({name: step(name) for name in models}, repeats)
    base = seconds["gather"]
    stock, dense = (f"{seconds[name] / base:.2f}x" for name in ("stock", "sdpa"))
    return f"| {length} | {share:.0%} | {stock} | {dense} | {base * 1e3:.0f} ms |"


def generation(length: int, share: float, new: int, repeats: int) -> str:
    """Greedy generation behind a long prompt: keys in the cache at the end, and time for each way."""
    model = model_of(4, 256).eval()
    ids = torch.randint(1, 2000, (1, length), generator=torch.Generator().manual_seed(1))
    types = typed(length, share)
    attach(model, CONFIG)
    kept: dict[str, int] = {}
    said: dict[str, torch.Tensor] = {}

    def write(evict: bool) -> Callable[[], None]:
        def run():
            with session(model, types, generated=NOISE, evict=evict):
                out = model.generate(ids, max_new_tokens=new, do_sample=False, return_dict_in_generate=True)
            name = "evict" if evict else "keep"
            kept[name], said[name] = out.past_key_values.layers[0].keys.shape[2], out.sequences

        return run

    seconds = interleaved({"keep": write(False), "evict": write(True)}, repeats)
    same = torch.equal(said["keep"], said["evict"])
    detach(model)
    return (
        f"| {length} | {share:.0%} | {kept['keep']} | {kept['evict']} | {seconds['keep'] / seconds['evict']:.2f}x | "
        f"{new / seconds['evict']:.0f} tokens/s | {'yes' if same else '**no**'} |"
    )


def on_a_gpu(repeats: int) -> list[str]:
    """FlexAttention against causal SDPA (flash), forward + backward, bf16."""
    lines = []
    for length in (4096, 8192, 16384, 32768):
        q, k, v = (
            torch.randn(1, HEADS, length, DIM, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        )
        types, hsa = typed(length, 0.2).cuda(), HSA(CONFIG, HEADS, HEADS * DIM).cuda()

        def causal(batch_idx, head_idx, q_idx, kv_idx):
            return kv_idx <= q_idx

        plan = flex_plan(hsa, types, causal, None, torch.bfloat16)

        def synced(call: Callable) -> Callable:
            def run():
                call()
                torch.cuda.synchronize()

            return run

        ways = {
            "flex": synced(trained(lambda p=plan, q=q, k=k, v=v: p.attend(q, k, v), (q, k, v))),
            "flash": synced(
                trained(lambda q=q, k=k, v=v: scaled_dot_product_attention(q, k, v, is_causal=True), (q, k, v))
            ),
        }
        seconds = interleaved(ways, repeats)
        lines.append(f"| {length} | {seconds['flash'] / seconds['flex']:.2f}x | {seconds['flex'] * 1e3:.1f} ms |")
    return lines


@click.command()
@click.option("--smoke", is_flag=True, help="Run the same code on tiny sizes and write nothing.")
def main(smoke: bool) -> None:
    torch.set_num_threads(1)
    lengths = (256,) if smoke else (512, 1024, 2048, 4096, 8192)
    repeats = 1 if smoke else 7
    text = [
        "# hsa: the gather kernel and eviction",
        "",
        f"`make bench` on 1 CPU thread, torch {torch.__version__}, float32, {HEADS} heads of {DIM}, NOISE with a "
        "window of 64 tokens. Ratios are medians of interleaved runs; above 1 gather is faster. `kept` is the share of "
        "tokens that are GLOBAL or LANDMARK. `causal` is stock SDPA without any semantics.",
        "",
        "| tokens | kept | pass | against causal SDPA | against SDPA with the float mask | against eager | gather |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for length in lengths:
        for share in (0.05, 0.2, 0.4):
            text += kernels(length, share, 3 if length >= 4096 and not smoke else repeats, dense=length <= 2048)
    text += ["", "A whole training step of a 2-layer Qwen2 of width 512:", "",
             "| tokens | kept | against the stock model | against impl=sdpa with HSA | gather |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    text += [training_step(length, 0.2, repeats) for length in lengths[:4]]
    text += ["", "Generation of a 4-layer Qwen2 of width 256 behind a prompt, with a DynamicCache:", "",
             "| prompt | kept | keys in the cache | with eviction | speed with eviction | | same text |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    text += [generation(length, 0.2, 8 if smoke else 128, 1 if smoke else 3) for length in lengths[-3:]]
    if torch.cuda.is_available():
        text += ["", f"On {torch.cuda.get_device_name()}, bf16, 20% kept, forward + backward:", "",
                 "| tokens | flex against flash SDPA | flex |", "| --- | --- | --- |", *on_a_gpu(repeats)]  # fmt: skip
    else:
        text += ["", "FlexAttention needs a GPU and was not measured here."]
    print("\n".join(text))
    if not smoke:
        (HERE / "hsa.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
