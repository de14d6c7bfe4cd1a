"""The words of the world of rooms and things. The stand-in knows them as words, and nothing else of that world."""

ROOMS = ("kitchen", "cellar", "attic", "garden", "hall", "study", "garage", "nursery")
THINGS = ("apple", "key", "lamp", "book", "cup", "ball", "coat", "drum", "flute", "map", "rope", "vase")
RULE = "Fetch each thing from where it was put, not from where it was seen."
WALK = "walk on"  # what the agent says when nothing is asked of it


def sentences() -> list[str]:
    """Every form with every word, for a tokenizer."""
    lines = [RULE, WALK]
    for thing in THINGS:
        lines += [
            f"no {thing} there",
            *(f"{verb} {thing} {room}" for room in ROOMS for verb in ("put", "saw", "fetch")),
        ]
    return lines
