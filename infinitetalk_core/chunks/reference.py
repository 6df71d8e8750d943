"""Choice of the reference frame of each chunk, for identity, background and camera. Integers at 25 fps.

The paper compares where the reference comes from in training (section 3.3 and its ablation: M0 to M3). The distance in
time decides how strongly the reference controls the chunk: a frame of the same time is copied, a distant one lets
colors and background drift, a neighboring one is a balance. The policies here offer the same choices at inference.
"""

from __future__ import annotations

import enum
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..audio.windows import mirror
from ..errors import InputError
from ..number_lists import number_in, shortened, whole_number_in, words_in
from ..rate import FRAMES_PER_SECOND
from ..wording import counted
from .plan import Chunk

DISTANT_SECONDS = 5
CANDIDATES = 8


class Policy(enum.Enum):
    """Policies for the choice of the reference frame."""

    STILL = "still"  # the first frame for the whole video: a portrait
    CHUNK_START = "chunk start"  # the source frame at the chunk's start: the paper's inference
    NEIGHBOR = "neighbor"  # M3: a frame just outside the chunk, within a radius
    SAME_CHUNK = "same chunk, random"  # M0: a random frame of the chunk's time
    CHUNK_EDGE = "first or last of chunk"  # M1: the chunk's first or last frame
    DISTANT = "distant"  # M2: a frame more than 5 s away
    FIRST_LAST = "first and last"  # FL2V baseline: first and last frame of the chunk are given
    PREVIOUS_OUTPUT = "previous output"  # I2V baseline: the last generated frame
    ADAPTIVE = "adaptive"  # soft control, section 3.4: a neighbor chosen by similarity to the context frames
    BY_HAND = "by hand"  # times given for each chunk


class AfterEnd(enum.Enum):
    """How the source continues after its end, when the speech is longer."""

    HOLD = "hold the last frame"
    PING_PONG = "play backwards, then forwards"
    LOOP = "start again"


@dataclass(frozen=True)
class ReferenceSettings:
    """A reference policy and its parameters."""

    policy: Policy = Policy.STILL
    after_end: AfterEnd = AfterEnd.HOLD
    radius_seconds: float = 1.0  # neighbor, adaptive: how far outside the chunk
    seed: int = 0  # for the random policies
    control: float = 0.5  # adaptive: 0 the neighbor most similar to the context (weak control), 1 the least similar
    times_seconds: tuple[float, ...] = ()  # by hand: one time for each chunk

    def __post_init__(self) -> None:
        if not 0 <= self.control <= 1:
            raise InputError(f"control must be between 0 (weak) and 1 (strong), got {self.control}")
        if not self.radius_seconds > 0:
            raise InputError(f"the radius must be above 0 seconds, got {self.radius_seconds}")


@dataclass(frozen=True)
class ReferenceChoice:
    """The reference of a chunk.

    frames: source frames at 25 fps. A single frame is the reference; of several candidates, `control` selects one by
    rank of similarity to the context. last: source frame that ends the chunk, with frames[0] at its start. previous:
    the last frame of the previous chunk is the reference, and frames[0] only for the first chunk.
    """

    frames: tuple[int, ...]
    last: int | None = None
    previous: bool = False


@dataclass(frozen=True)
class PlannedChunk:
    """A chunk with its reference (`choice`) and the seed of its noise. seed_given: the user chose it for this chunk."""

    chunk: Chunk
    choice: ReferenceChoice
    seed: int
    seed_given: bool = field(default=False, compare=False)  # with the same seed it is the same chunk


def source_frame(frame: int, length: int, after_end: AfterEnd) -> int:
    """Return the source frame (0 … length-1, at 25 fps) that corresponds to output frame `frame`."""
    if after_end is AfterEnd.LOOP:
        return frame % length
    if after_end is AfterEnd.PING_PONG:
        return mirror(frame, length)
    return min(frame, length - 1)


def shown_frames(chunk: Chunk, length: int, after_end: AfterEnd) -> list[int]:
    """Return the source frames (0 … length-1) that correspond to the chunk's frames."""
    return [source_frame(frame, length, after_end) for frame in range(chunk.start, chunk.start + chunk.length)]


def output_cuts(total: int, source_cuts: Sequence[int], length: int, after_end: AfterEnd) -> list[int]:
    """Return the output frames at which another shot of the source begins.

    source_cuts: first frames of its later shots.
    """
    if not source_cuts:
        return []
    shots = [bisect_right(source_cuts, source_frame(frame, length, after_end)) for frame in range(total)]
    return [frame for frame in range(1, total) if shots[frame] != shots[frame - 1]]


def choose_references(
    plan: Sequence[Chunk], settings: ReferenceSettings, length: int, source_cuts: Sequence[int] = ()
) -> list[ReferenceChoice]:
    """Choose the reference of each chunk of `plan` in a source of `length` frames, never from another shot."""
    if settings.policy is Policy.BY_HAND:
        return [ReferenceChoice((frame,)) for frame in _by_hand(len(plan), settings, length)]
    return [_choose(chunk, settings, length, _shot(chunk, settings, length, source_cuts)) for chunk in plan]


def _shot(chunk: Chunk, settings: ReferenceSettings, length: int, cuts: Sequence[int]) -> range:
    """Return the source frames of the shot that contains the chunk's first new frame."""
    seen = source_frame(chunk.start + chunk.context, length, settings.after_end)
    shot = bisect_right(cuts, seen)
    return range(cuts[shot - 1] if shot else 0, cuts[shot] if shot < len(cuts) else length)


def _choose(chunk: Chunk, settings: ReferenceSettings, length: int, shot: range) -> ReferenceChoice:
    # Frames of the chunk beyond the shot are not written: clamp them to the shot.
    shown = [min(max(f, shot.start), shot.stop - 1) for f in shown_frames(chunk, length, settings.after_end)]
    first, last = shown[0], shown[-1]
    # Depends on seed and chunk index only, so that any chunk can be made again alone.
    draw = random.Random(settings.seed * 1_000_003 + chunk.index)
    match settings.policy:
        case Policy.STILL:
            return ReferenceChoice((0,))
        case Policy.SAME_CHUNK:
            return ReferenceChoice((draw.choice(shown),))
        case Policy.CHUNK_EDGE:
            return ReferenceChoice((draw.choice((first, last)),))
        case Policy.FIRST_LAST:
            return ReferenceChoice((first,), last=last)
        case Policy.PREVIOUS_OUTPUT:
            return ReferenceChoice((first,), previous=True)
        case Policy.DISTANT:
            return ReferenceChoice((_distant(shot, shown, draw),))
        case Policy.NEIGHBOR:
            return ReferenceChoice((draw.choice(_neighbors(settings, shot, shown)),))
        case Policy.ADAPTIVE:
            near = _neighbors(settings, shot, shown)
            return ReferenceChoice(tuple(sorted(draw.sample(near, min(CANDIDATES, len(near))))))
        case Policy.CHUNK_START:
            return ReferenceChoice((first,))
    raise ValueError(f"no frame is chosen for the policy {settings.policy}")


def _neighbors(settings: ReferenceSettings, shot: range, shown: Sequence[int]) -> list[int]:
    """Return the shot's frames within the radius of the shown frames but not among them; if there are none, the chunk's
    first and last frame."""
    radius = max(round(settings.radius_seconds * FRAMES_PER_SECOND), 1)
    seen = set(shown)
    near = {f for low, high in _runs(seen) for f in (*range(low - radius, low), *range(high + 1, high + radius + 1))}
    return sorted(f for f in near - seen if f in shot) or sorted({shown[0], shown[-1]})


def _distant(shot: range, shown: Sequence[int], draw: random.Random) -> int:
    """Draw a frame of the shot more than 5 s from all shown frames; if there is none, return the farthest one."""
    margin = DISTANT_SECONDS * FRAMES_PER_SECOND
    edges = [shot.start, *(edge for low, high in _runs(set(shown)) for edge in (low - margin, high + margin + 1))]
    starts, ends = edges[::2], [*edges[1::2], shot.stop]
    pieces = [range(max(a, shot.start), min(b, shot.stop)) for a, b in zip(starts, ends, strict=True)]
    far = sum(len(piece) for piece in pieces)
    if far == 0:
        return max((shot.start, shot.stop - 1), key=lambda f: min(abs(f - s) for s in shown))
    offset = draw.randrange(far)
    for piece in pieces:
        if offset < len(piece):
            return piece[offset]
        offset -= len(piece)
    raise AssertionError("the pieces hold all far frames")


def _runs(frames: set[int]) -> list[tuple[int, int]]:
    """Split a set of frames into consecutive runs (first, last): two when a looping source restarts in the chunk."""
    runs: list[tuple[int, int]] = []
    for frame in sorted(frames):
        if runs and frame == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], frame)
        else:
            runs.append((frame, frame))
    return runs


def _by_hand(chunks: int, settings: ReferenceSettings, length: int) -> list[int]:
    times = settings.times_seconds
    if len(times) < chunks:
        raise InputError(
            f"{counted(len(times), 'reference time')} {'is' if len(times) == 1 else 'are'} given, but the speech needs "
            f"{counted(chunks, 'chunk')}: give one for each"
        )
    end = length / FRAMES_PER_SECOND
    for number, seconds in enumerate(times[:chunks], start=1):
        if not 0 <= seconds <= end:
            raise InputError(
                f"reference time {number} is {seconds:g} s, outside the source, which lasts {end:g} s from 0"
            )
    # 1e-6 against rounding down: 0.08 s is frame 2, not 1.
    return [min(int(t * FRAMES_PER_SECOND + 1e-6), length - 1) for t in times[:chunks]]


def parse_times(text: str) -> tuple[float, ...]:
    """Parse times, written as seconds or minutes:seconds and separated by commas, spaces or line breaks, to seconds.

    Raises InputError for anything else. Seconds outside the source, also negative ones, are refused where it is known.
    """
    return tuple(_seconds(word) for word in words_in(text))


def _seconds(word: str) -> float:
    before, colon, after = word.rpartition(":")
    minutes = whole_number_in(before) if before else 0
    seconds = number_in(after)
    if minutes is None or seconds is None:
        raise InputError(f"{shortened(word)!r} is not a time; write seconds or minutes:seconds, such as 2.5 or 1:07")
    if colon and (minutes < 0 or not 0 <= seconds < 60):
        raise InputError(
            f"{shortened(word)!r} is not a time: minutes are not negative, and the seconds after them are 0 to 60, as "
            "in 1:07"
        )
    return minutes * 60 + seconds
