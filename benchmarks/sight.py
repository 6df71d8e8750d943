"""Put faults of known size into true videos, and show what each number of evaluation/sight.py says about them.

    python3 benchmarks/sight.py [--speakers 3] [--video FILE]... [--stranger PICTURE] [--write docs/numbers.md]

The true videos are drawn speakers, whose parts are known exactly, and the given files of one person each (the first
6 s, at most 160 pixels wide or high); --stranger is a picture of somebody else. All are encoded and decoded as the
pack does it before they are measured. --write replaces the tables in that file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.joins import film
from benchmarks.sight_faults import blurred, faded, flickering, frozen, jumping, late, pulsing, turned
from evaluation.sight import NUMBERS, Delivered, Sight, Truth, look
from infinitetalk_core.chunks.assembly import Assembly
from infinitetalk_core.chunks.groups import plan_groups
from infinitetalk_core.chunks.lips import mouth_gaps
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.regions import segments, small_lab
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.format import VideoFormat
from infinitetalk_core.video.segment import to_pictures
from infinitetalk_core.video.writer import VideoWriter
from training.articulation import Articulation
from training.characters import make_character
from training.performance import perform, still_camera
from training.render import PARTS, part_masks, render

FRAMES = 150
PLAN = plan_chunks(FRAMES, 49, 9)
JOINS = [chunk.first for chunk in PLAN if chunk.context]
KEYS = (0, 40, 80, 120)  # of the file with a pulse
UNSEEN = 1_000_000  # first seed of the speakers that no model has learned from
MARK = "<!-- benchmarks/sight.py -->"
FEATURES = ("eyes", "brows", "mouth")


@dataclass(frozen=True)
class TrueVideo:
    """A video without faults. clothes, wall, face: masks (F, H, W)."""

    name: str
    frames: Tensor
    truth: Truth
    clothes: Tensor
    wall: Tensor
    face: Tensor
    brows: Tensor | None = None
    stranger: Tensor | None = None  # the same with another identity


@dataclass(frozen=True)
class Fault:
    """A video with a fault. size: in units of what is just visible, None for one that has no size."""

    name: str
    number: str  # the number named for it
    size: float | None
    make: Callable[[], Tensor]  # returns the frames
    key_frames: tuple[int, ...] | None = None  # None: those of the file


def drawn(seed: int) -> TrueVideo:
    """Return a drawn speaker."""
    voice = _voice(seed)
    character, acting, camera = make_character(seed), perform(voice, seed), still_camera(FRAMES)
    parts = torch.from_numpy(part_masks(character, acting, camera))
    by_name = {name: parts[:, index] for index, name in enumerate(PARTS)}
    shape = make_character(seed + 500)
    other = replace(
        character,
        eye_gap=character.eye_gap + (0.03 if character.eye_gap < 0.1 else -0.03),
        eye_size=shape.eye_size,
        eye_tilt=shape.eye_tilt,
        brow_arch=shape.brow_arch,
        face_height=character.face_height * 0.93,
    )
    frames = _pixels(render(character, acting, camera))
    return TrueVideo(
        f"drawn {seed - UNSEEN}",
        frames,
        Truth(frames[0], JOINS, {name: by_name[name][0] for name in FEATURES}, voice.opening),
        by_name["clothes"],
        by_name["wall"],
        by_name["skin"] | by_name["eyes"] | by_name["brows"] | by_name["mouth"],
        by_name["brows"],
        _pixels(render(other, acting, camera)),
    )


def _pixels(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).float() / 255


def _voice(seed: int) -> Articulation:
    """Return a mouth that opens and closes at random, about as fast as in speech."""
    rng = np.random.default_rng(seed)
    track, width = (np.convolve(rng.normal(size=FRAMES + 8), np.hanning(9), "valid")[:FRAMES] for _ in range(2))
    opening = np.clip(0.3 + 0.35 * track / track.std(), 0, 1)
    energy = np.convolve(opening, np.ones(5) / 5, "same")
    return Articulation(*(np.asarray(t, np.float32) for t in (opening, np.clip(0.4 * width, -1, 1), energy)))


def _smaller(frames: Tensor, longest: int = 160) -> Tensor:
    """Return frames (F, H, W, 3) with even sides of at most `longest` pixels."""
    scale = min(longest / max(frames.shape[1:3]), 1)
    size = [round(side * scale / 2) * 2 for side in frames.shape[1:3]]
    return torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2), size=size, mode="area").permute(0, 2, 3, 1)


def picture_of(path: Path, like: Tensor) -> Tensor:
    """Return a picture, cut to the shape of the frames `like`, as as many frames."""
    height, width = like.shape[1:3]
    with Image.open(path) as opened:
        fitted = ImageOps.fit(opened.convert("RGB"), (width, height))
    return _pixels(np.array(fitted)).expand(len(like), -1, -1, -1)


def filmed(path: Path) -> TrueVideo:
    """Return the beginning of a film of one person, with parts that are found by color and place."""
    frames = _smaller(film(path, FRAMES))
    height, width = frames.shape[1:3]
    masks, _ = segments(small_lab(frames[:1])[0])
    wide = torch.nn.functional.interpolate(masks[None].float(), size=(height, width))[0]
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    low = (wide * (y > 0.75)).sum((1, 2)) / wide.sum((1, 2)).clamp_min(1)
    high = (wide * (y < 0.35) * ((x - 0.5).abs() > 0.25)).sum((1, 2)) / wide.sum((1, 2)).clamp_min(1)
    clothes, wall = (wide[share.argmax()].expand(len(frames), -1, -1) for share in (low, high))
    face = (((x - 0.5) / 0.25) ** 2 + ((y - 0.42) / 0.32) ** 2 < 1).float().expand(len(frames), -1, -1)
    try:
        opening = mouth_gaps(frames, every=1)[:, 0]
    except InputError:
        opening = None  # the library is missing
    return TrueVideo(path.stem, frames, Truth(frames[0], JOINS, None, opening, real_face=True), clothes, wall, face)


def faults(video: TrueVideo, strangers: Sequence[Tensor] = ()) -> Iterator[Fault]:
    """Yield the video with each fault in turn. strangers: frames of other people, for an identity that is another."""
    yield from _color_faults(video)
    yield from _face_faults(video)
    yield from _time_faults(video.frames)
    if video.truth.opening is not None:
        for count in (2, 5):
            yield Fault(f"lips {count} frames late", "lag", float(count), partial(late, video.frames, count))
    if video.stranger is not None:
        yield Fault("another identity", "displaced", None, partial(torch.clone, video.stranger))
    for frames in strangers:
        yield Fault("another person", "identity", None, partial(torch.clone, frames))


def _color_faults(video: TrueVideo) -> Iterator[Fault]:
    frames, color = video.frames, NUMBERS["color"].visible
    for units in (3, 6, 12):
        yield Fault(f"clothes turned by {units}", "color", units / color, partial(turned, frames, video.clothes, units))
    for units in (3, 6):
        yield Fault(f"wall tinted by {units}", "color", units / color, partial(turned, frames, video.wall, units, 200))
    for units in (1.5, 3):
        size = units / NUMBERS["color_overall"].visible
        all_of_it = torch.ones(frames.shape[:3])
        yield Fault(f"all tinted by {units:g}", "color_overall", size, partial(turned, frames, all_of_it, units, 20))


def _face_faults(video: TrueVideo) -> Iterator[Fault]:
    frames = video.frames
    if video.brows is not None:
        for share in (0.5, 0.8):
            yield Fault(
                f"brows faded by {share:.0%}", "contrast", share / 0.25, partial(faded, frames, video.brows, share)
            )
    for percent in (1, 2):
        soft = partial(blurred, frames, video.face, percent / 100 * frames.shape[1])
        yield Fault(f"face blurred by {percent}% of the height", "softest_part", 2.0 * percent, soft)


def _time_faults(frames: Tensor) -> Iterator[Fault]:
    for count in (6, 12):
        yield Fault(f"{count} frames frozen", "frozen", count / 3, partial(frozen, frames, count))
    for units in (0.6, 1.2):
        yield Fault(f"flicker of ±{units}", "flicker", units / 0.3, partial(flickering, frames, units))
    for units in (2, 4):  # of lightness; 1 is just visible
        yield Fault(f"jump by {units} at a join", "jump", float(units), partial(jumping, frames, JOINS[1], units))
        yield Fault(f"pulse of {units}", "pulse", float(units), partial(pulsing, frames, KEYS, units), KEYS[1:])


def delivered(frames: Tensor, folder: Path) -> Delivered:
    """Encode frames as the pack does with its default settings, and decode them."""
    path = folder / "video.mp4"
    path.unlink(missing_ok=True)
    with VideoWriter(path, None) as writer, Assembly(writer, plan_groups(PLAN), VideoFormat()) as assembly:
        for chunk in PLAN:
            assembly.add(chunk.keep, to_pictures(frames[chunk.first : chunk.stop], VideoFormat()))
    return Delivered.read(path)


def faulty(fault: Fault, folder: Path) -> Delivered:
    """Return the delivered file of a video with a fault."""
    file = delivered(fault.make(), folder)
    return file if fault.key_frames is None else replace(file, key_frames=fault.key_frames)


@dataclass(frozen=True)
class Row:
    """What the numbers say about a video. fault: None for the true one."""

    video: str
    fault: Fault | None
    sight: Sight

    @property
    def right(self) -> bool:
        """Whether the number named for the fault sees it at twice what is just visible, or none fires on the truth."""
        if self.fault is None:
            return not self.sight.visible
        small = self.fault.size is not None and self.fault.size < 2
        return small or self.fault.number in self.sight.visible


def rows(video: TrueVideo, strangers: Sequence[Tensor] = ()) -> Iterator[Row]:
    """Yield what is seen in the true video and in those with faults."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        yield Row(video.name, None, look(delivered(video.frames, folder), video.truth))
        for fault in faults(video, strangers):
            yield Row(video.name, fault, look(faulty(fault, folder), video.truth))


def tables(found: Sequence[Row]) -> str:
    """Return the tables of true videos and of faults."""
    names = list(NUMBERS)
    lines = ["### True videos, encoded and decoded", "", "| video | " + " | ".join(names) + " |"]
    lines += ["| --- |" + " --- |" * len(names)]
    lines += [f"| just visible | {' | '.join(_limit(name) for name in names)} |"]
    for row in found:
        if row.fault is None:
            cells = [f"{row.sight.values[n]:.2f}" if n in row.sight.values else "–" for n in names]
            lines.append(f"| {row.video} | {' | '.join(cells)} |")
    lines += [
        "",
        "### Faults",
        "",
        "| video | fault | times just visible | number | without | with | seen | others that see it |",
    ]
    lines += ["| --- |" + " --- |" * 7]
    clean = {row.video: row.sight for row in found if row.fault is None}
    for row in found:
        if row.fault is not None:
            lines.append(f"| {row.video} | {_fault_cells(row.fault, row.sight, clean[row.video])} |")
    return "\n".join(lines) + "\n"


def _limit(name: str) -> str:
    return f"{'below' if NUMBERS[name].falls else 'above'} {NUMBERS[name].visible:g}"


def _fault_cells(fault: Fault, sight: Sight, clean: Sight) -> str:
    value, before = (f"{s.values[fault.number]:.2f}" if fault.number in s.values else "–" for s in (sight, clean))
    seen = "yes" if fault.number in sight.visible else "no"
    others = ", ".join(name for name in sight.visible if name != fault.number) or "none"
    size = "–" if fault.size is None else f"{fault.size:.1f}"
    return f"{fault.name} | {size} | `{fault.number}` | {before} | {value} | {seen} | {others}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--speakers", type=int, default=3)
    parser.add_argument("--video", type=Path, action="append", default=[])
    parser.add_argument("--stranger", type=Path)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    found: list[Row] = []
    for video in [*(drawn(UNSEEN + number) for number in range(asked.speakers)), *map(filmed, asked.video)]:
        with_others = asked.stranger is not None and video.truth.real_face
        for row in rows(video, [picture_of(asked.stranger, video.frames)] if with_others else []):
            found.append(row)
            name = "true" if row.fault is None else row.fault.name
            print(row.video, name, "" if row.right else "WRONG", row.sight.visible, flush=True)
            if not row.right:
                print({name: round(value, 2) for name, value in row.sight.values.items()})
        if asked.write:
            before, _, _ = asked.write.read_text(encoding="utf-8").partition(MARK)
            asked.write.write_text(f"{before}{MARK}\n\n{tables(found)}", encoding="utf-8")
    print(tables(found))


if __name__ == "__main__":
    main()
