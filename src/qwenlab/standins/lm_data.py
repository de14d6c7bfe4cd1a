"""What the small language model reads: configurations, tasks and what they ask for, a dictionary of tools, durations.

All samples are made on the fly from a seed:

- a configuration in words, behind one vector that tells it (see `lm.Trainer`);
- a task, and what it asks for: as JSON, or as a short list in any order, so that all of it is known when the answer
  begins. Half of the lists also tell what a vector in front of the task says;
- what people say for each tool, in phrasings of every split, for a large model knows these words too; tasks are put in
  frames of their own and of the training split. No sentence of a test task is among them: its frames and its ways of
  saying a deadline occur nowhere here;
- comparisons of two durations.
"""

import math

import numpy as np

from qwenlab.tomas.language import DEADLINES, FRAMES, NO_DEADLINES, size_words
from qwenlab.tomas.numbers import number_word, round_significant
from qwenlab.tomas.registry import SPLITS, Registry
from qwenlab.tomas.text_template import PHRASES, ConfigTextTemplate

NUMBERS = list(range(100))  # the first two digits of a number; what follows are zeros
FIELD_VALUES = {
    "cpu_cores": [1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32],
    "memory_gb": [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64],
    "gpu_sm": [5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100],
    "gpu_memory_gb": [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48],
}
FIELD_WORDS = ("CPU cores", "GB memory", "GPU SMs", "GB GPU memory", "ms latency")
OWN_FRAMES = [
    "{request}. {size}. {deadline}.", "{size} input, {deadline}: please {request}.",
    "We must {request}, {deadline}. {size}.", "Somebody has to {request}. It is a {size} one. {deadline}.",
    "Next, {request}. {deadline}. The size is {size}.", "{deadline}, {request}, {size}.",
    "Will you {request}? Input size {size}. {deadline}.", "There is a {size} file. {deadline}. Please {request}.",
    "Job: {request}, {size}; {deadline}.", "Be so kind and {request}: {size}, {deadline}.",
    "Input {size}. {deadline}. {request}.", "To do: {request}. {size}; {deadline}.",
]  # fmt: skip
OWN_DEADLINES = [
    "{ms} ms", "before {ms} ms are over", "limit of {ms} ms", "time limit {ms} ms", "at most {ms} ms", "max {ms} ms",
    "it may take {ms} ms", "ready in {ms} ms",
]  # fmt: skip
EXTRA_TOOLS = ("speech_recognition", "text_to_speech", "image_generation", "code_completion", "document_ocr")


def number_tokens() -> list[str]:
    """The first one or two digits of a number, with the space before them, as they stand in sentences."""
    return [f" {value}" for value in NUMBERS]


def zero_tokens() -> list[str]:
    """What follows two significant digits: " 5800" is " 58" and "00"."""
    return ["0" * count for count in range(1, 6)]


def phrase_tokens() -> list[str]:
    """Boilerplate of the template, a token each."""
    return list(PHRASES)


class Samples:
    """Draws samples; the same ones for the same seed."""

    def __init__(self, registry: Registry, seed: int):
        self.registry, self.rng = registry, np.random.default_rng(seed)
        self.names = [*registry.names, *EXTRA_TOOLS]
        self.template = ConfigTextTemplate(registry.input_sizes)

    def _pick(self, values):
        return values[self.rng.integers(len(values))]

    def _duration(self) -> float:
        """ms with two significant digits; round ones, as people say them, half of the time."""
        lead = self._pick((10, 15, 20, 30, 50, 70)) if self.rng.random() < 0.5 else self._pick(range(10, 100))
        return float(lead * 10 ** self.rng.integers(1, 5))

    def configuration(self) -> tuple[str, list[float], str]:
        """(tool name, resource vector, the sentence) of a configuration that no profile has to hold."""
        given = [float(self._pick(choices)) for choices in FIELD_VALUES.values()]
        tool, size = self._pick(self.names), int(self.rng.integers(len(self.registry.input_sizes)))
        latency = math.exp(self.rng.uniform(math.log(100), math.log(990_000)))
        text = self.template.format_single(tool, [size, *given, round_significant(latency, 2)])
        return tool, [size, *given, latency], text

    def bounds(self) -> list[list[float]]:
        """The lowest and the highest resource vector."""
        ends = [(min(choices), max(choices)) for choices in FIELD_VALUES.values()]
        return [
            [0, *(low for low, _ in ends), 100],
            [len(self.registry.input_sizes) - 1, *(high for _, high in ends), 990_000],
        ]

    def request(self) -> str:
        """A line of the dictionary: a request of any split, and the tool it is for."""
        tool = self._pick(self.registry.tools)
        asked = self._pick([one for split in SPLITS for one in tool.asked(split)])
        return f"{asked} is a job for {tool.name}." if self.rng.random() < 0.5 else f"{tool.name}: {asked}."

    def task(self) -> tuple[str, list[str]]:
        """(a task, the values that it asks for: tool, input size, deadline)."""
        tool = self._pick(self.registry.tools)
        size = self._pick(self.registry.input_sizes)
        asked = [one for split in SPLITS for one in tool.asked(split)]
        if self.rng.random() < 0.1:
            deadline, limit = self._pick([*NO_DEADLINES["train"], "whenever you can"]), "none"
        else:
            limit = f"{number_word(self._duration())} ms"
            deadline = self._pick([*DEADLINES["train"], *OWN_DEADLINES]).format(ms=limit.removesuffix(" ms"))
        text = self._pick([*FRAMES["train"], *OWN_FRAMES]).format(
            request=self._pick(asked), size=self._pick(size_words(size, "train")), deadline=deadline
        )
        return text[0].upper() + text[1:], [tool.name, size, limit]

    def answer(self, values: list[str]) -> str:
        """The values of a task as JSON."""
        tool, size, limit = values
        return f'{{"tool": "{tool}", "input_size": "{size}", "deadline_ms": {limit.removesuffix(" ms")} }}'

    def told(self, vector: list[float]) -> list[str]:
        """What a resource vector says, a phrase a number, the latency with two digits."""
        numbers = [*vector[1:5], round_significant(vector[5], 2)]
        return [f"{number_word(value)} {words}" for value, words in zip(numbers, FIELD_WORDS, strict=True)]

    def short_list(self, values: list[str]) -> str:
        """Up to three of the values in any order; the space in front makes their numbers the usual tokens."""
        order = self.rng.permutation(len(values))[:3]
        return "".join(f" {values[index]};" for index in order)

    def comparison(self) -> str:
        """Which of two durations is longer."""
        one, other = self._duration(), self._duration()
        word = "equal to" if one == other else "more than" if one > other else "less than"
        return f"A time of {number_word(one)} ms is {word} {number_word(other)} ms."
