"""When guidance acts, and what it does inside the real pipeline."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.edges import edge_loss
from qwenlab.core.errors import UserError
from qwenlab.core.image_conditioning import working_areas
from qwenlab.core.media import to_tensor
from qwenlab.videoedit import guidance as module
from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
from qwenlab.videoedit.pipeline import FrameEditor
from qwenlab.videoedit.selftest import self_test
from qwenlab.videoedit.source import edge_picture
from tests.pictures import picture

WINDOW = st.fixed_dictionaries(
    {
        "every": st.integers(1, 5),
        "start_step": st.none() | st.integers(0, 12),
        "end_step": st.none() | st.integers(1, 12),
        "last_steps": st.none() | st.integers(1, 12),
    }
)


@given(WINDOW, st.integers(1, 10))
def test_a_window_acts_on_the_steps_that_satisfy_every_bound(window: dict, total: int):
    config = LossGuidanceConfig(edge_scale=1, **window)
    acting = [s for s in range(total) if config.acts_at(s, total)]
    start, end = window["start_step"] or 0, window["end_step"] or total
    first = max(start, total - (window["last_steps"] or total))
    assert acting == [s for s in range(total) if s % window["every"] == 0 and first <= s < end]
    if acting:
        config.check_it_can_act(total)
    else:
        with pytest.raises(UserError, match="never acts"):
            config.check_it_can_act(total)


def test_guidance_with_nothing_to_weigh_is_refused():
    with pytest.raises(UserError, match="all 0"):
        LossGuidanceConfig().check_it_can_act(10)


def test_switched_off_guidance_never_acts_and_is_no_error():
    config = LossGuidanceConfig(enabled=False)
    config.check_it_can_act(10)
    assert not any(config.acts_at(s, 10) for s in range(10))


def draw(pipe, runtime, drawing, seed=0, sizes=None, **config):
    first, wanted = picture(0), picture(1)
    edge = edge_picture(wanted)
    guidance = LossGuidanceConfig(**config) if config else LossGuidanceConfig(enabled=False)
    editor = FrameEditor(pipe, runtime, drawing, guidance, sizes or LossSizes(), first)
    target = to_tensor(edge)[:, :1]
    frame, log = editor.draw(edge, first, target, seed)
    return to_tensor(frame), edge_loss(to_tensor(frame), target).item(), log


@pytest.mark.parametrize("estimate", ["x0", "latents", "backprop", "spherical"])
def test_every_rule_lowers_the_edge_loss(pipe, runtime, drawing, estimate):
    lr = 0.5 if estimate == "spherical" else 0.15
    _, off, _ = draw(pipe, runtime, drawing)
    _, on, log = draw(pipe, runtime, drawing, edge_scale=1.0, estimate=estimate, lr=lr)
    assert on < off
    assert log.applied == 2 and log.skipped_nonfinite == 0


@pytest.mark.parametrize("extra", [{"step": "l2"}, {"step": "adam"}, {"inner_steps": 3}, {"edge_kind": "laplacian"}])
def test_every_option_of_the_step_runs_and_changes_the_frame(pipe, runtime, drawing, extra):
    off, _, _ = draw(pipe, runtime, drawing)
    on, _, log = draw(pipe, runtime, drawing, edge_scale=1.0, lr=5.0 if extra.get("step") == "l2" else 0.1, **extra)
    assert torch.isfinite(on).all() and not torch.equal(on, off)
    assert log.applied == 2 * extra.get("inner_steps", 1)


def test_gram_and_temporal_losses_and_small_sizes_run(pipe, runtime, drawing):
    sizes = LossSizes(edge_size=48, gram_size=32, decode_shrink=2)
    _, _, log = draw(pipe, runtime, drawing, sizes=sizes, edge_scale=1, gram_scale=0.01, temporal_scale=1, last_steps=1)
    assert log.applied == 1


def test_classifier_free_guidance_and_backprop_go_together(pipe, runtime, drawing):
    both = drawing.model_copy(update={"true_cfg_scale": 2.0})
    _, _, log = draw(pipe, runtime, both, edge_scale=1.0, estimate="backprop", lr=0.1)
    assert log.applied == 2


def test_the_same_seed_gives_the_same_frame_and_another_seed_another(pipe, runtime, drawing):
    a, b, c = (draw(pipe, runtime, drawing, seed=s, edge_scale=1.0, lr=0.1)[0] for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_gradient_that_is_not_finite_skips_the_step_and_is_counted(pipe, runtime, drawing, monkeypatch):
    off, _, _ = draw(pipe, runtime, drawing)
    monkeypatch.setattr(module, "total_loss", lambda images, *_: (images * float("nan")).sum())
    on, _, log = draw(pipe, runtime, drawing, edge_scale=1.0)
    assert torch.equal(on, off)
    assert (log.applied, log.skipped_nonfinite) == (0, 2)


def test_guidance_works_inside_the_callers_inference_mode(pipe, runtime, drawing):
    expected, _, _ = draw(pipe, runtime, drawing, edge_scale=1.0, lr=0.1)
    with torch.inference_mode():
        inside, _, log = draw(pipe, runtime, drawing, edge_scale=1.0, lr=0.1)
    assert log.applied == 2
    assert torch.equal(inside, expected)


def test_weights_made_in_inference_mode_are_a_clear_error(pipe, runtime, drawing, monkeypatch):
    from qwenlab.videoedit.pipeline import load_pipeline

    with torch.inference_mode(), pytest.raises(UserError, match="inference_mode"):
        load_pipeline(runtime)
    message = "Inference tensors cannot be saved for backward."

    def fails(*_, **__):
        raise RuntimeError(message)

    monkeypatch.setattr(module, "total_loss", fails)
    with pytest.raises(UserError, match="inference_mode"):
        draw(pipe, runtime, drawing, edge_scale=1.0)


def test_guidance_under_group_offloading_draws_the_same_frame(pipe, runtime, drawing):
    """The hooks of diffusers, with the CPU as both ends: the autoencoder stays out, so its gradient is untouched."""
    from qwenlab.videoedit.pipeline import load_pipeline

    plain, _, _ = draw(pipe, runtime, drawing, edge_scale=1.0, lr=0.1)
    offloaded = load_pipeline(runtime)
    offloaded.enable_group_offload(torch.device("cpu"), offload_type="leaf_level", exclude_modules=["vae"])
    same, _, log = draw(offloaded, runtime, drawing, edge_scale=1.0, lr=0.1)
    assert log.applied == 2 and torch.equal(same, plain)


def test_the_x0_estimate_of_the_callback_is_the_schedulers_own(pipe, runtime, drawing, monkeypatch):
    """After the step, latents - sigma_next * v is what sample - sigma * v was before it."""
    before, after = [], []
    step = pipe.scheduler.step

    def spy(velocity, t, sample, **kwargs):
        before.append(sample - pipe.scheduler.sigmas[len(before)] * velocity)
        return step(velocity, t, sample, **kwargs)

    def callback(pipe, index, timestep, kwargs):
        after.append(kwargs["latents"] - pipe.scheduler.sigmas[index + 1] * kwargs["noise_pred"])
        return {"latents": kwargs["latents"]}

    monkeypatch.setattr(pipe.scheduler, "step", spy)
    first = picture(0)
    with working_areas(runtime.vae_area, runtime.condition_area):
        pipe(
            image=[edge_picture(first), first], prompt=drawing.prompt, height=64, width=96, num_inference_steps=3,
            true_cfg_scale=1.0, generator=torch.Generator().manual_seed(0), callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=["latents", "noise_pred"], output_type="latent",
        )  # fmt: skip
    assert len(before) == len(after) == 3
    for ours, independent in zip(after, before, strict=True):
        assert torch.allclose(ours, independent, atol=1e-5)


def test_the_self_test_passes_and_names_what_it_checked():
    lines = self_test(gram=True)
    assert any("sobel" in line for line in lines) and any("torchvision" in line for line in lines)


def test_the_self_test_fails_without_torchvision_when_gram_is_wanted(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchvision", None)
    self_test(gram=False)
    with pytest.raises(UserError, match="torchvision is not installed"):
        self_test(gram=True)
