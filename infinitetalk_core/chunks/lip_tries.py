"""Chunks whose lips do not follow the voice, made again with other seeds: which try is kept, and what is said of it.

A chunk is made again while the lips of its worst speaker (lips.py) score below `ENOUGH`, at most as often as
the job says. Of all tries the best is kept. Seeds and scores depend on the job and the chunk alone, so a resumed run
decides the same. What cannot be measured is not made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import InputError
from .lips import SHORTEST, SILENT, ChunkLips
from .plan import SEEDS, Chunk

ENOUGH = 0.25  # a wrong voice has about 0.2
MOST_RETRIES = 3
SEED_STEP = 1_000_003  # between the seeds of two tries; more than a video has chunks, so that none has another's noise
_TIMES = ("", "once", "twice", "three times")
_ORDINALS = ("", "first", "second", "third")

_Made = TypeVar("_Made")


def check_retries(count: int) -> int:
    """Return how often a chunk may be made again. Raises InputError unless it is 0 to MOST_RETRIES."""
    if not 0 <= count <= MOST_RETRIES:
        raise InputError(f"retry_lips must be 0 (off) to {MOST_RETRIES} further tries of a chunk, got {count}")
    return count


@dataclass(frozen=True)
class LipTries:
    """All tries of a chunk so far.

    seed: of the first one's noise; scores: of their lips, None where they cannot be compared; kept: the index of the
    best one; lips: that one's.
    """

    chunk: Chunk
    seed: int
    scores: tuple[float | None, ...]
    kept: int
    lips: ChunkLips

    @property
    def best(self) -> float | None:
        """The score of the best try; None where lips cannot be measured."""
        return self.scores[self.kept]

    def seed_of(self, attempt: int) -> int:
        """Return the seed of the noise of a try, from 0."""
        return (self.seed + SEED_STEP * attempt) % SEEDS

    def __str__(self) -> str:
        """For example `chunk 3: lips 0.12, made again twice, kept the second with 0.61`."""
        again = len(self.scores) - 1
        text = f"chunk {self.chunk.index + 1}: lips {_number(self.scores[0])}"
        if again == 0:
            return text
        text += f", made again {_TIMES[again]}"
        if self.kept == 0:
            return f"{text} ({', '.join(map(_number, self.scores[1:]))}), which was no better, kept as it was"
        return f"{text}, kept {'it' if again == 1 else f'the {_ORDINALS[self.kept]}'} with {_number(self.best)}"

    def to_json(self) -> list[dict[str, Any]] | None:
        """Return the tries for the report, None for a single one. Their seeds are those that `redo_chunks` takes."""
        if len(self.scores) == 1:
            return None
        return [
            {
                "seed": (self.seed_of(attempt) - self.chunk.index) % SEEDS,
                "lip_sync": score,
                "kept": attempt == self.kept,
            }
            for attempt, score in enumerate(self.scores)
        ]


def best_try(
    chunk: Chunk,
    seed: int,
    retries: int,
    make: Callable[[int], _Made],
    measure: Callable[[_Made], ChunkLips],
    before_retry: Callable[[LipTries], None],
) -> tuple[_Made, LipTries]:
    """Make a chunk until its lips are good enough, and return the best try with what is known of all.

    make: makes it with a seed; measure: measures what was made; before_retry: called with the tries so far before each
    further one. Two tries are in memory at most: the best and the one that is being made.
    """
    kept = make(seed)
    lips = measure(kept)
    tries = LipTries(chunk, seed, (_score(lips, lips),), 0, lips)
    while tries.best is not None and tries.best < ENOUGH and len(tries.scores) <= retries:
        before_retry(tries)
        attempt = len(tries.scores)
        made = make(tries.seed_of(attempt))
        lips = measure(made)
        score = _score(lips, tries.lips)
        better = score is not None and score > tries.best
        tries = LipTries(
            chunk, seed, (*tries.scores, score), attempt if better else tries.kept, lips if better else tries.lips
        )
        kept = made if better else kept
        del made
    return kept, tries


class LipsWarning:
    """Warns once in an execution that chunks are not made again because their lips cannot be measured."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn: Callable[[str], None] | None = warn

    def made(self, tries: LipTries | None) -> None:
        """Look at a chunk. tries: None where chunks are not made again.

        A pause of the voice and the short rest of a shot are no reason to warn.
        """
        if self._warn is None or tries is None or tries.best is not None:
            return
        chunk = tries.chunk
        is_rest = chunk.keep < min(SHORTEST, chunk.length - chunk.context)
        if is_rest or all(speaker.absent == SILENT for speaker in tries.lips.speakers):
            return
        warn, self._warn = self._warn, None
        warn(
            f"retry_lips has no effect on chunk {chunk.index + 1}, and on others where the report says so: "
            f"{tries.lips.absent}"
        )


def _score(lips: ChunkLips, like: ChunkLips) -> float | None:
    """Return the score of the worst speaker; None unless the same speakers are measured as in `like`."""
    return None if lips.worst is None or lips.measured != like.measured else lips.worst.score


def _number(score: float | None) -> str:
    return "not measured" if score is None else f"{score:.2f}"
