"""A configuration in words (seed 002, 1.1): what the resource encoder learns to make a frozen LM say."""

from collections.abc import Iterable, Sequence

from qwenlab.tomas.numbers import number_word

TEMPLATE = (
    "Tool {tool} configuration: input size {size}, requires {cpu_cores} CPU cores, {memory_gb} GB memory, "
    "{gpu_sm} GPU SMs, {gpu_memory_gb} GB GPU memory, and latency is {latency_ms} ms."
)
# The same words cut where a value stands; stand-ins read each as one token.
PHRASES = (
    " configuration: input size", ", requires", " CPU cores,", " GB memory,", " GPU SMs,",
    " GB GPU memory, and latency is", " ms.",
)  # fmt: skip


class ConfigTextTemplate:
    """Writes configurations. `input_sizes` names the values of the first number."""

    def __init__(self, input_sizes: Sequence[str]):
        self.input_sizes = list(input_sizes)

    def format_single(self, tool_name: str, resource_vector: Sequence[float]) -> str:
        """One configuration; `resource_vector` as `profiling.FIELDS`, numbers printed with six digits at most.

        Raises:
            ValueError: when it has not six numbers, or the first is no index of an input size.
        """
        if len(resource_vector) != 6:
            raise ValueError(f"resource_vector has {len(resource_vector)} numbers; expected 6.")
        size, *numbers = map(float, resource_vector)
        if size not in range(len(self.input_sizes)):
            raise ValueError(f"input size {size:g} is no index of {self.input_sizes}.")
        names = ("cpu_cores", "memory_gb", "gpu_sm", "gpu_memory_gb", "latency_ms")
        values = {name: number_word(value) for name, value in zip(names, numbers, strict=True)}
        return TEMPLATE.format(tool=tool_name, size=self.input_sizes[int(size)], **values)

    def format_batch(self, data_list: Iterable[tuple[str, Sequence[float]]]) -> list[str]:
        """Several (tool name, resource vector) pairs."""
        return [self.format_single(tool, vector) for tool, vector in data_list]
