"""How the omni model is asked: video, its sound if there is any, the question; in Qwen's chat format."""

from collections.abc import Sequence

# HumanOmniV2's user text begins with this sentence.
OPENING = "Here is a video, with the audio from the video."
SILENT = "Here is a video."
FORMAT = (
    "First describe what you see and hear in <context> </context>, then reason in <think> </think>, "
    "then give the answer in <answer> </answer>."
)


def chat_text(question: str, options: Sequence[str], has_sound: bool) -> str:
    """The whole prompt, with one placeholder each for video and sound."""
    shown = f" Options: {' '.join(options)}" if options else ""
    video = "<|vision_bos|><|VIDEO|><|vision_eos|>"
    sound = "<|audio_bos|><|AUDIO|><|audio_eos|>" if has_sound else ""
    return (
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{video}{sound}"
        f"{OPENING if has_sound else SILENT}\n{question}{shown}\n{FORMAT}<|im_end|>\n<|im_start|>assistant\n"
    )
