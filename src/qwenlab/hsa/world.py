"""A world of rooms and things, as conversations with a semantic type a message (seed 003, background 1 and 2).

    world = make_world(random.Random("train 7"), Sizes(puts=4, noise=8, asks=4))
    record(world, answers=None)      # a ShareGPT record; answers of the agent, or None for the right ones

Things are put somewhere (LANDMARK) and are seen here and there on the way (NOISE): both turns name a thing and a room,
and only the first says where the thing will be. At the end the agent is told which things to fetch (GLOBAL). So what
was put must be bound to its room, and recalled across turns that look the same. When all is fetched, the world tells
of every wrong answer behind `<|feedback|>`, and the agent answers again: the reflective part of a trajectory.
"""

import hashlib
import random
from dataclasses import dataclass

from pydantic import Field

from qwenlab.core.params import Params
from qwenlab.hsa.feedback import FEEDBACK_TOKEN
from qwenlab.hsa.words import ROOMS, RULE, THINGS, WALK

HELD_OUT = 5  # one world in so many is never trained on


class Sizes(Params):
    """How long a trajectory is."""

    puts: int = Field(ge=1, le=len(THINGS), description="things put somewhere: turns to remember")
    noise: int = Field(ge=0, description="turns in which a thing is only seen")
    asks: int = Field(ge=1, le=len(THINGS), description="things to fetch at the end")


@dataclass(frozen=True)
class World:
    """What happens: events (kind `put` or `saw`, thing, room) in their order, and the things to fetch."""

    events: tuple[tuple[str, str, str], ...]
    wanted: tuple[str, ...]

    @property
    def where(self) -> dict[str, str]:
        """The room that each thing was put into."""
        return {thing: room for kind, thing, room in self.events if kind == "put"}


def held_out(where: dict[str, str]) -> bool:
    """Whether a world with these places is for judging only, by the hash of the places."""
    text = ",".join(f"{thing}:{room}" for thing, room in sorted(where.items()))
    return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT == 0


def make_world(rng: random.Random, sizes: Sizes, test: bool = False) -> World:
    """A world of the training or the held-out part.

    Things are put in the first part of the trajectory, in random turns; every thing may be seen anywhere, so that a
    mention that comes late, or is alone, says nothing.
    """
    while True:
        things = rng.sample(THINGS, sizes.puts)
        where = {thing: rng.choice(ROOMS) for thing in things}
        if held_out(where) == test:
            break
    turns = sizes.puts + sizes.noise
    put_at = set(rng.sample(range(max(sizes.puts, turns * 2 // 3)), sizes.puts))
    waiting = list(things)
    events = []
    for turn in range(turns):
        if turn in put_at:
            thing = waiting.pop(0)
            events.append(("put", thing, where[thing]))
        else:
            # Most of what is seen are the things that will be asked for, or noise would be easy to tell.
            thing = rng.choice(things if rng.random() < 0.8 else THINGS)
            events.append(("saw", thing, rng.choice(ROOMS)))
    return World(tuple(events), tuple(rng.sample(things, min(sizes.asks, sizes.puts))))


def answer(thing: str, room: str) -> str:
    """What the agent says to fetch a thing."""
    return f"fetch {thing} {room}"


def record(world: World, answers: list[str] | None = None, correct: bool = True, upto: int | None = None) -> dict:
    """A trajectory as a ShareGPT record.

    Args:
        answers: rooms that the agent named for `world.wanted`, maybe wrong; None: the right ones (an expert).
        correct: with wrong answers, add the feedback and the right answers to it.
        upto: stop at the request for that many things, with an empty answer to be written by a model.

    Returns:
        {"conversations": [{"from": "human" or "gpt", "value", "semantic_type"}, ...]}
    """
    right = [world.where[thing] for thing in world.wanted]
    said = right if answers is None else answers
    turns = [("human", RULE, "GLOBAL"), ("gpt", WALK, "NOISE")]
    for kind, thing, room in world.events:
        turns += [
            ("human", f"{kind} {thing} {room}", "LANDMARK" if kind == "put" else "NOISE"),
            ("gpt", WALK, "NOISE"),
        ]
    for thing, room in list(zip(world.wanted, said, strict=True))[:upto]:
        turns += [("human", f"fetch {thing}", "GLOBAL"), ("gpt", answer(thing, room), "NOISE")]
    if correct and upto is None:
        wrong = [
            (thing, one, other) for thing, one, other in zip(world.wanted, said, right, strict=True) if one != other
        ]
        for thing, _, truth in wrong:
            turns += [
                ("human", f"{FEEDBACK_TOKEN} no {thing} there", "LANDMARK"),
                ("gpt", answer(thing, truth), "NOISE"),
            ]
    return {"conversations": [{"from": who, "value": text, "semantic_type": kind} for who, text, kind in turns]}
