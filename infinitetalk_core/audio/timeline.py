"""Where decoded pieces of a sound belong, by the times that its file gives them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ..log import log

# Times are rounded and jitter by a few milliseconds, so a smaller difference, one frame of video, is no hole.
TOLERANCE_SECONDS = Fraction(1, 25)
# A piece may begin this much before the end of the one before it, which is then played once. More is no overlap but
# another piece whose clock starts anew: files that were joined.
LONGEST_OVERLAP_SECONDS = Fraction(1, 2)
LONGEST_SILENCE_SECONDS = 3600  # of all holes together; more comes from broken times
MOST_SILENCE_BYTES = 4 << 30


@dataclass(frozen=True)
class Place:
    """What to do before a piece is appended: insert `silence` samples, and leave out its first `skipped` samples."""

    silence: int = 0
    skipped: int = 0


class Timeline:
    """Compares the samples so far with the time of each piece.

    start: the time at which the file begins, in seconds; None: its times are to be ignored. rate: in Hz.
    """

    def __init__(self, name: str, start: Fraction | None, rate: int, channels: int) -> None:
        self._name, self._start, self._rate = name, start, rate
        self._silence_left = min(LONGEST_SILENCE_SECONDS * rate, MOST_SILENCE_BYTES // (4 * channels))
        self._overlap = Fraction(0)  # samples that the pieces since the last one in its place may overlap it
        self._skipped = 0  # samples of these pieces
        self._warned = False

    def place(self, time: Fraction | None, count: int, length: int) -> Place:
        """Return where a piece of `length` samples that begins at `time` belongs after `count` samples.

        time: in seconds; None: unknown.
        """
        if self._start is None or time is None:
            return Place()
        late = time - self._start - Fraction(count, self._rate)
        samples = round(abs(late) * self._rate)
        if abs(late) <= TOLERANCE_SECONDS:
            self._skipped = 0
            return Place()
        if late > 0 and samples <= self._silence_left:
            self._silence_left -= samples
            self._skipped = 0
            return Place(silence=samples)
        if -LONGEST_OVERLAP_SECONDS <= late < 0:
            if not self._skipped:
                self._overlap = samples + TOLERANCE_SECONDS * self._rate
            self._skipped += min(samples, length)
            if self._skipped <= self._overlap:
                return Place(skipped=samples)
            # The clock stands still: by its times, all of the sound would be left out.
            self._warn(late, "is not believed any more")
            self._start = None
            return Place()
        self._warn(late, "jumps: what comes behind it is joined on")
        self._start += late
        self._skipped = 0
        return Place()

    def _warn(self, late: Fraction, what: str) -> None:
        if not self._warned:
            log.warning("the clock of the sound of %s, %.1f seconds off, %s", self._name, float(late), what)
        self._warned = True
