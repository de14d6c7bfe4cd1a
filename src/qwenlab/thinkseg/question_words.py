"""Phrases from a question's own words, with no model at all: the arm `question`, which the summaries have to beat.

RAKE (Rose et al. 2010): runs of words between stop words and punctuation, ranked by degree / frequency of their
words, which favours long runs. Works on English; runs of Chinese characters are taken whole.
"""

import re
from collections import Counter

STOP = frozenset(
    word
    for line in (
        "a about after all also an and any are as at be been before behind being between both but by can",
        "could did do does doing during each first for from go goes going had has have having he her him his",
        "how i if in into is it its large last look looks may me most move moves my no not of off on or our",
        "out over said same seem she should size small so some start starts than that the their them then",
        "there these they this those through to too toward towards under until up us very was we were what",
        "when where which while who whom whose why will with would you your feel feels mood clip video sound",
        "way",
    )
    for word in line.split()
)
LONGEST = 4  # words of a phrase


def phrases_of(question: str, most: int = 4) -> list[str]:
    """Up to `most` phrases, the best first; the question's longest word if it has nothing but stop words."""
    runs: list[list[str]] = [[]]
    for token in re.findall(r"[^\W_]+(?:['-][^\W_]+)*|[^\w\s]", question.lower()):
        if not token[0].isalnum() or token in STOP:
            runs.append([])
        else:
            runs[-1].append(token)
    runs = [run for run in runs if 0 < len(run) <= LONGEST]
    frequency = Counter(word for run in runs for word in run)
    degree = Counter({word: 0 for word in frequency})
    for run in runs:
        for word in run:
            degree[word] += len(run)
    ranked = sorted(runs, key=lambda run: -sum(degree[word] / frequency[word] for word in run))
    found = list(dict.fromkeys(" ".join(run) for run in ranked))[:most]
    return found or sorted(re.findall(r"\w+", question), key=len)[-1:]
