"""qwenlab: five Qwen research systems, one DVC pipeline. Each system is a controlled experiment."""

__version__ = "0.1.0"
