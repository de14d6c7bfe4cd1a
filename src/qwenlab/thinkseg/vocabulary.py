"""The words of the procedural clips: what thinker, teacher, student, questions and SAM3 prompts have in common."""

SHAPES = ("circle", "square", "triangle")  # the categories
COLORS = ("red", "green", "blue", "yellow", "purple", "cyan")
SIZES = ("small", "large")
MOTIONS = ("left", "right", "up", "down", "still")
POSITIONS = ("left", "right", "top", "bottom", "center")  # where a thing is in the first frame
TONES = ("low", "high", "rising", "falling")  # one a clip
SOURCES = ("drift", "crossing", "crowd")  # kinds of clips, in the place of the seed's three data sets

RGB = {  # 8 bit; clips vary them a little
    "red": (222, 36, 36),
    "green": (36, 178, 52),
    "blue": (40, 74, 226),
    "yellow": (238, 216, 44),
    "purple": (168, 52, 198),
    "cyan": (48, 206, 216),
}


def phrase(color: str, shape: str) -> str:
    """A SAM3 prompt, such as "red circle"."""
    return f"{color} {shape}"


PHRASES = tuple(phrase(color, shape) for color in COLORS for shape in SHAPES)
