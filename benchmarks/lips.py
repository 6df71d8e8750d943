"""Tell the right voice of recorded speakers from shifted and foreign ones, by their lips (chunks/lips.py).

    python3 benchmarks/lips.py VIDEO... [--voice SOUND]... [--fit] [--write docs/numbers.md]

Each video shows one person who speaks in it. It is cut into chunks of 72 frames, every 36 frames, and each is measured
as a run measures it: with its own sound, with that 0.5 and 1 s earlier and later, and with the sounds of the other
videos and of the given files. A chunk with a voice is right if its own sound scores higher. --fit prints weights that
are fitted to these videos, and measures each video with weights that are fitted to the others. Needs dlib.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from infinitetalk_core.audio.reading import read_sound
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks.face_points import load_dlib
from infinitetalk_core.chunks.lips import MAX_LAG, WEIGHTS, lip_sync, mouth_gaps, voice_bands, wanted_opening
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.source import open_source

FRAMES, STEP = 72, 36  # of a chunk, and between two
SHIFTS = (-25, -12, 12, 25)
LONGEST = 832  # pixels of the longer side, as in a video of the pack
FOREIGN_FROM = (10, 90, 170)  # frames of a foreign voice at which it begins
SILENT = -9.0  # in place of the score of a silent voice
RIDGE = 100.0
CHANGES = 2.0  # weight of the changes from frame to frame in the fit
BEGIN, END = "<!-- benchmarks/lips.py -->", "<!-- end of benchmarks/lips.py -->"


@dataclass(frozen=True)
class Recording:
    """A recorded speaker, cut into chunks."""

    name: str
    sound: Sound
    frames: int
    gaps: dict[int, NDArray[np.float64]] = field(default_factory=dict)  # by the first frame of the chunk
    absent: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of the processor, by chunk


@dataclass(frozen=True)
class Told:
    """What was measured in one recording. shifted, foreign: whether the right voice scored higher, by chunk and voice.

    known: the same of all voices, where only lags near the median of the recording's other chunks are tried.
    """

    name: str
    right: list[float]
    lags: list[int]
    wrong: list[float]
    shifted: list[bool]
    foreign: list[bool]
    known: list[bool]


def read(path: Path) -> Recording:
    """Read a recording and find the mouth in all of its chunks."""
    source = open_source(path)
    found = Recording(path.stem, read_sound(path), source.length)
    for first in range(0, source.length - FRAMES + 1, STEP):
        frames = torch.stack([_smaller(source.frame(index)) for index in range(first, first + FRAMES)])
        began = time.process_time()
        try:
            found.gaps[first] = mouth_gaps(frames)
        except InputError as error:
            found.absent.append(str(error))
        found.seconds.append(time.process_time() - began)
    return found


def _smaller(frame: Tensor) -> Tensor:
    scale = min(LONGEST / max(frame.shape[:2]), 1)
    size = [round(side * scale) for side in frame.shape[:2]]
    return torch.nn.functional.interpolate(frame.permute(2, 0, 1)[None], size=size, mode="area")[0].permute(1, 2, 0)


def measured(
    gaps: NDArray[np.float64], sound: Sound, first: int, weights: NDArray[np.float64], near: int | None = None
) -> tuple[float, int]:
    """Return score and lag of a chunk with a voice; SILENT for a silent one."""
    try:
        bands = voice_bands(sound, first - MAX_LAG, FRAMES + 2 * MAX_LAG)
    except InputError:
        return SILENT, 0
    sync = lip_sync(gaps, wanted_opening(bands, weights), near)
    return sync.score, sync.lag


def tell(recording: Recording, strangers: Sequence[Sound], weights: NDArray[np.float64]) -> Told:
    """Measure all chunks of a recording with right and wrong voices."""
    told = Told(recording.name, [], [], [], [], [], [])
    own = {first: measured(gaps, recording.sound, first, weights) for first, gaps in recording.gaps.items()}
    spoken = {first: found for first, found in own.items() if found[0] != SILENT}
    for first, (right, lag) in spoken.items():
        gaps = recording.gaps[first]
        others = [lag for other, (_, lag) in spoken.items() if other != first]
        near = round(float(np.median(others))) if others else lag
        at_lag = measured(gaps, recording.sound, first, weights, near)[0]
        told.right.append(right)
        told.lags.append(lag)
        shifted = [(recording.sound, first + shift) for shift in SHIFTS]
        foreign = [(sound, begin) for sound in strangers for begin in FOREIGN_FROM]
        for voices, apart in ((shifted, told.shifted), (foreign, told.foreign)):
            for sound, begin in voices:
                if not 0 <= begin <= sound.frames - FRAMES:
                    continue
                wrong = measured(gaps, sound, begin, weights)[0]
                if wrong != SILENT:
                    told.wrong.append(wrong)
                    apart.append(right > wrong)
                    told.known.append(at_lag > measured(gaps, sound, begin, weights, near)[0])
    return told


def fitted(recordings: Sequence[Recording]) -> NDArray[np.float64]:
    """Return weights (5, 6) fitted by ridge regression to the mouths of recordings, each at its own lag."""
    inputs, outputs = [], []
    for recording in recordings:
        found = [measured(gaps, recording.sound, first, WEIGHTS)[1] for first, gaps in recording.gaps.items()]
        lag = int(np.median(found)) if found else 0
        for first, gaps in recording.gaps.items():
            try:
                bands = voice_bands(recording.sound, first - lag - 2, FRAMES + 4)
            except InputError:
                continue
            around = np.lib.stride_tricks.sliding_window_view(bands, 5, axis=0).transpose(0, 2, 1).reshape(FRAMES, -1)
            moved = gaps - gaps.mean(0)
            wanted = (moved / np.maximum(moved.std(0), 1e-9)).mean(1)
            inputs += [around, CHANGES * np.gradient(around, axis=0)]
            outputs += [wanted, CHANGES * np.gradient(wanted)]
    x, y = np.concatenate(inputs), np.concatenate(outputs)
    return np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y).reshape(5, -1)


def table(rows: Sequence[Told], recordings: Sequence[Recording]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| video | chunks | right voice | lag | wrong voices | shifted told apart | foreign told apart | "
        "both, at the video's lag |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in [*rows, _together(rows)]:
        if row.right:
            lag = f"{np.median(row.lags):+.0f}" if row.name != "all" else ""
            lines.append(
                f"| {row.name} | {len(row.right)} | {np.mean(row.right):.2f} | {lag} | {np.mean(row.wrong):.2f} | "
                f"{_share(row.shifted)} | {_share(row.foreign)} | {_share(row.known)} |"
            )
    absent = [f"{recording.name}: {reason}" for recording in recordings for reason in recording.absent]
    seconds = [s for recording in recordings for s in recording.seconds]
    cost = f"The processor needed {1000 * np.mean(seconds):.0f} ms for a chunk of {FRAMES} frames."
    return "\n".join([*lines, "", cost, *(f"Not measured: {reason}." for reason in sorted(set(absent)))])


def _together(rows: Sequence[Told]) -> Told:
    names = ("right", "lags", "wrong", "shifted", "foreign", "known")
    return Told("all", *([x for row in rows for x in getattr(row, name)] for name in names))


def _share(right: Sequence[bool]) -> str:
    return f"{np.mean(right):.1%} of {len(right)}" if right else "–"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path, nargs="+")
    parser.add_argument("--voice", type=Path, action="append", default=[])
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    load_dlib()
    recordings = [read(path) for path in asked.video]
    voices = [read_sound(path) for path in asked.voice]

    def others(recording: Recording) -> list[Recording]:
        return [other for other in recordings if other is not recording]

    def told(recording: Recording, weights: NDArray[np.float64]) -> Told:
        return tell(recording, [*(other.sound for other in others(recording)), *voices], weights)

    text = table([told(recording, WEIGHTS) for recording in recordings], recordings)
    if asked.fit:
        print(np.array2string(fitted(recordings), precision=2, separator=", "))
        held_out = [told(recording, fitted(others(recording))) for recording in recordings]
        text += "\n\nWith weights that are fitted to the other videos:\n\n" + table(held_out, recordings)
    print(text)
    if asked.write:
        before, _, rest = asked.write.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        asked.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
