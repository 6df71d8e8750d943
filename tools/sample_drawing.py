"""Draw the sample people: flat portraits of smooth shapes; a head can turn, blink and open its mouth.

Lengths are in half face widths: a face is about 2 wide and 2.6 high, centred at the origin, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float]
Colour = str
OVERSAMPLING = 3  # shapes are drawn larger and scaled down: smooth edges


@dataclass(frozen=True)
class Look:
    """One person's colours and hair."""

    skin: Colour
    shade: Colour
    blush: Colour
    hair: Colour
    hair_light: Colour
    iris: Colour
    lips: Colour
    coat: Colour
    coat_dark: Colour
    shirt: Colour
    mouth_line: Colour
    brow: float  # how thick, 1 is fine
    long_hair: bool
    glasses: bool = False


@dataclass(frozen=True)
class Pose:
    """How a person is held: sway, nod in half face widths, tilt in degrees, blink and mouth from 0 to 1."""

    sway: float = 0.0
    nod: float = 0.0
    tilt: float = 0.0
    blink: float = 0.0
    mouth: float = 0.0


WOMAN = Look(
    skin="#f2c3a2", shade="#e0a582", blush="#ee9c84", hair="#4b2a27", hair_light="#6d4038", iris="#3f7d6e",
    lips="#c4535a", coat="#2c5d73", coat_dark="#234b5e", shirt="#f6efe4", mouth_line="#7c2f35", brow=1.0,
    long_hair=True,
)  # fmt: skip
MAN = Look(
    skin="#c98f66", shade="#b27750", blush="#bd7a58", hair="#25211f", hair_light="#3b3431", iris="#5a3d28",
    lips="#a9654c", coat="#d9824a", coat_dark="#bd6c38", shirt="#3a3f55", mouth_line="#6b3a2c", brow=1.9,
    long_hair=False, glasses=True,
)  # fmt: skip
# Shades instead of colours: brighter is nearer.
DEPTH_BACKDROP, DEPTH_NOSE = 70, "#ffffff"
DEPTH = replace(
    WOMAN, skin="#d8d8d8", shade="#bcbcbc", hair="#b4b4b4", coat="#cccccc", coat_dark="#d2d2d2", shirt="#c4c4c4"
)


def smooth(points: Sequence[Point], steps: int = 12) -> list[Point]:
    """A closed curve through all points (Catmull-Rom)."""
    curve = []
    n = len(points)
    for i in range(n):
        a, b, c, d = (points[(i + k - 1) % n] for k in range(4))
        for s in range(steps):
            t = s / steps
            curve.append(tuple(_catmull_rom(a[k], b[k], c[k], d[k], t) for k in (0, 1)))
    return curve  # type: ignore[return-value]


def bow(points: Sequence[Point]) -> list[Point]:
    """An open curve through all points."""
    return smooth([*points, *reversed(points)])[: (len(points) - 1) * 12 + 1]


def _catmull_rom(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3)


def mirrored(half: Sequence[Point]) -> list[Point]:
    """A symmetric outline from its right half, listed from top to bottom."""
    return [*half, *((-x, y) for x, y in reversed(half) if x != 0)]


class Pen:
    """Draws on a picture in a person's own coordinates, moved, scaled and turned."""

    def __init__(self, picture: Image.Image, centre: Point, unit: float, tilt: float = 0.0, pivot: float = 1.7):
        self.picture, self.draw = picture, ImageDraw.Draw(picture)
        self.centre, self.unit, self.pivot = centre, unit, pivot
        self.cos, self.sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))

    def at(self, point: Point) -> Point:
        """Picture coordinates of a point; turning is about the neck."""
        x, y = point[0], point[1] - self.pivot
        turned = (x * self.cos - y * self.sin, x * self.sin + y * self.cos + self.pivot)
        return self.centre[0] + turned[0] * self.unit, self.centre[1] + turned[1] * self.unit

    def shape(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill the smooth closed curve through the points."""
        self.draw.polygon([self.at(p) for p in smooth(points)], fill=colour)

    def oval(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill an ellipse, given its centre and half axes."""
        self.draw.polygon([self.at(p) for p in _ring(x, y, width, height)], fill=colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line with round ends through the points."""
        path = [self.at(p) for p in points]
        pixels = max(1, round(width * self.unit))
        self.draw.line(path, fill=colour, width=pixels, joint="curve")
        for x, y in (path[0], path[-1]):
            self.draw.ellipse([x - pixels / 2, y - pixels / 2, x + pixels / 2, y + pixels / 2], fill=colour)

    def inside(self, outline: Sequence[Point]) -> Image.Image:
        """A mask of what lies inside a smooth closed curve."""
        mask = Image.new("L", self.picture.size, 0)
        ImageDraw.Draw(mask).polygon([self.at(p) for p in smooth(outline)], fill=255)
        return mask

    def soft(self, x: float, y: float, width: float, height: float, colour: Colour, strength: float) -> None:
        """A blurred ellipse."""
        mask = Image.new("L", self.picture.size, 0)
        ring = [self.at(p) for p in _ring(x, y, width, height)]
        ImageDraw.Draw(mask).polygon(ring, fill=round(255 * strength))
        mask = mask.filter(ImageFilter.GaussianBlur(0.4 * min(width, height) * self.unit))
        self.picture.paste(colour, (0, 0), mask)


def _ring(x: float, y: float, width: float, height: float) -> list[Point]:
    turns = (2 * math.pi * i / 72 for i in range(72))
    return [(x + width * math.cos(a), y + height * math.sin(a)) for a in turns]


FACE = mirrored(
    [(0, -1.3), (0.55, -1.2), (0.92, -0.75), (0.98, -0.1), (0.9, 0.5), (0.66, 0.98), (0.3, 1.26), (0, 1.32)]
)


def draw_person(picture: Image.Image, look: Look, pose: Pose, centre: Point, unit: float) -> None:
    """Draw head and shoulders; `centre` is the face's, `unit` half its width, in pixels of `picture`."""
    body = Pen(picture, (centre[0] + 0.35 * pose.sway * unit, centre[1]), unit)
    head = Pen(picture, (centre[0] + pose.sway * unit, centre[1] + pose.nod * unit), unit, pose.tilt)
    if look.long_hair:
        _long_hair_behind(head, look)
    _shoulders(body, look)
    _neck(body, head, look)
    for side in () if look.long_hair else (-1, 1):
        head.oval(side * 0.98, 0.08, 0.16, 0.27, look.skin)
        head.oval(side * 1.0, 0.1, 0.08, 0.16, look.shade)
    head.shape(FACE, look.skin)
    _face(head, look, pose)
    if look.long_hair:
        _long_hair_front(head, look)
    else:
        _short_hair(head, look)
    _brows(head, look)
    if look.glasses:
        _glasses(head)


def _shoulders(pen: Pen, look: Look) -> None:
    coat = [(0.3, 1.75), (0.85, 1.98), (1.6, 2.22), (2.1, 2.7), (2.3, 3.6), (2.35, 5.0)]
    pen.shape(mirrored(coat), look.coat)
    pen.shape([(-0.42, 1.7), (0.42, 1.7), (0.3, 2.4), (0, 2.95), (-0.3, 2.4)], look.shirt)
    for side in (-1, 1):
        lapel = [(0.3, 1.72), (0.66, 1.86), (0.84, 2.3), (0.52, 2.72), (0.06, 3.3), (0.2, 2.5)]
        pen.shape([(side * x, y) for x, y in lapel], look.coat_dark)
        pen.stroke([(side * 1.45, 3.2), (side * 1.5, 5.0)], 0.04, look.coat_dark)


def _neck(body: Pen, head: Pen, look: Look) -> None:
    body.shape(mirrored([(0.36, 0.8), (0.38, 1.5), (0.46, 1.78), (0.2, 2.05), (0, 2.12)]), look.skin)
    neck = body.inside(mirrored([(0.36, 0.8), (0.38, 1.5), (0.46, 1.78), (0.2, 2.05), (0, 2.12)]))
    chin = head.inside([(x, y + 0.26) for x, y in FACE])
    head.picture.paste(look.shade, (0, 0), ImageChops.multiply(neck, chin))


def _face(pen: Pen, look: Look, pose: Pose) -> None:
    for side in (-1, 1):
        pen.soft(side * 0.6, 0.52, 0.24, 0.17, look.blush, 0.55)
        _eye(pen, look, side, pose.blink)
    pen.stroke([(0.02, 0.02), (0.13, 0.36), (0.1, 0.44), (-0.04, 0.46)], 0.055, look.shade)
    _mouth(pen, look, pose.mouth)


def _eye(pen: Pen, look: Look, side: int, blink: float) -> None:
    x, y = side * 0.43, -0.06
    lid = "#3a2522"
    open_ = 1.0 - blink
    if open_ < 0.15:
        shut = [(x - 0.2, y + 0.02), (x - 0.08, y + 0.08), (x + 0.08, y + 0.08), (x + 0.2, y + 0.02)]
        pen.stroke(bow(shut), 0.05, lid)
        return
    high, low = 0.15 * open_, 0.11 * open_
    outline = [(x - 0.22, y + 0.02), (x - 0.1, y - high), (x + 0.1, y - high), (x + 0.22, y), (x, y + low)]
    white = pen.inside(outline)
    pen.picture.paste("#fdfaf5", (0, 0), white)
    for radius, colour in ((0.135, look.iris), (0.068, "#1c1715")):
        disc = Image.new("L", pen.picture.size, 0)
        ImageDraw.Draw(disc).polygon([pen.at(p) for p in _ring(x, y - 0.02, radius, radius)], fill=255)
        pen.picture.paste(colour, (0, 0), ImageChops.multiply(disc, white))
    if open_ > 0.5:
        pen.oval(x + 0.05, y - 0.07, 0.034, 0.034, "#ffffff")
    arc = smooth(outline)[: 3 * 12 + 1]
    pen.stroke(arc, 0.055, lid)


def _mouth(pen: Pen, look: Look, opening: float) -> None:
    y = 0.82
    if opening < 0.08:
        pen.shape([(-0.3, y - 0.02), (-0.1, y - 0.055), (0, y - 0.035), (0.1, y - 0.055), (0.3, y - 0.02),
                   (0.14, y + 0.1), (0, y + 0.125), (-0.14, y + 0.1)], look.lips)  # fmt: skip
        line = [(-0.32, y - 0.03), (-0.16, y + 0.015), (0, y + 0.03), (0.16, y + 0.015), (0.32, y - 0.03)]
        pen.stroke(bow(line), 0.035, look.mouth_line)
        return
    drop = 0.3 * opening
    chin = y + 0.12 + drop
    pen.shape([(-0.29, y), (-0.1, y - 0.09), (0, y - 0.07), (0.1, y - 0.09), (0.29, y), (0.17, chin),
               (0, chin + 0.05), (-0.17, chin)], look.lips)  # fmt: skip
    low = y + 0.05 + drop
    hollow = [(-0.22, y + 0.01), (0, y - 0.01), (0.22, y + 0.01), (0.12, low), (-0.12, low)]
    inside = pen.inside(hollow)
    pen.picture.paste("#5d1f25", (0, 0), inside)
    teeth = pen.inside([(-0.2, y - 0.02), (0.2, y - 0.02), (0.18, y + 0.06), (-0.18, y + 0.06)])
    pen.picture.paste("#fbf6ee", (0, 0), ImageChops.multiply(teeth, inside))


def _brows(pen: Pen, look: Look) -> None:
    for side in (-1, 1):
        top, end = -0.4 - 0.06 * look.brow, -0.38 - 0.02 * look.brow
        brow = [(0.2, -0.36), (0.22, -0.36 - 0.04 * look.brow), (0.4, top), (0.66, end), (0.4, -0.4)]
        pen.shape([(side * x, y) for x, y in brow], look.hair)


def _long_hair_behind(pen: Pen, look: Look) -> None:
    outline = [(0, -1.62), (0.75, -1.48), (1.2, -0.9), (1.28, 0.0), (1.3, 0.9), (1.36, 1.7), (1.0, 2.15),
               (0.5, 2.0), (0, 1.7)]  # fmt: skip
    pen.shape(mirrored(outline), look.hair)


def _long_hair_front(pen: Pen, look: Look) -> None:
    fringe = [(-0.28, -1.5), (0.5, -1.5), (1.05, -1.05), (1.16, -0.2), (1.1, 0.5), (0.97, 0.2), (0.94, -0.35),
              (0.66, -0.78), (0.1, -1.0), (-0.25, -1.12)]  # fmt: skip
    pen.shape(fringe, look.hair)
    other = [(-0.15, -1.52), (-0.7, -1.44), (-1.1, -0.98), (-1.16, -0.2), (-1.1, 0.5), (-0.97, 0.2),
             (-0.93, -0.35), (-0.72, -0.75), (-0.4, -1.0), (-0.16, -1.18)]  # fmt: skip
    pen.shape(other, look.hair)
    right = [(0.0, -1.36), (0.5, -1.2), (0.88, -0.8), (1.02, -0.3)]
    left = [(-0.4, -1.32), (-0.78, -1.05), (-0.99, -0.6), (-1.04, -0.2)]
    for strand in (right, left):
        pen.stroke(bow(strand), 0.05, look.hair_light)


def _short_hair(pen: Pen, look: Look) -> None:
    outline = [(-1.02, -0.12), (-1.1, -0.7), (-0.9, -1.3), (-0.35, -1.62), (0.35, -1.66), (0.9, -1.38),
               (1.12, -0.75), (1.02, -0.12), (0.94, -0.22), (0.86, -0.66), (0.5, -0.86), (0.0, -0.9),
               (-0.45, -0.84), (-0.82, -0.62), (-0.93, -0.22)]  # fmt: skip
    pen.shape(outline, look.hair)
    strand = [(-0.6, -1.16), (-0.1, -1.36), (0.45, -1.34), (0.82, -1.06)]
    pen.stroke(bow(strand), 0.06, look.hair_light)


def _glasses(pen: Pen) -> None:
    frame = "#2b2a33"
    for side in (-1, 1):
        ring = _ring(side * 0.43, -0.03, 0.31, 0.27)
        pen.stroke([*ring, ring[0], ring[1]], 0.045, frame)
        pen.stroke([(side * 0.74, -0.08), (side * 0.95, -0.12)], 0.045, frame)
    pen.stroke([(-0.12, -0.06), (0, -0.1), (0.12, -0.06)], 0.045, frame)


def backdrop(size: tuple[int, int], top: Colour, bottom: Colour, discs: Sequence[tuple[float, ...]]) -> Image.Image:
    """A vertical blend with large soft discs (x, y, radius in parts of the height, lightness 0 to 1)."""
    height = size[1]
    ramp = Image.linear_gradient("L").resize(size)
    picture = Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), ramp)
    for x, y, radius, light in discs:
        mask = Image.new("L", size, 0)
        box = [(x - radius) * height, (y - radius) * height, (x + radius) * height, (y + radius) * height]
        ImageDraw.Draw(mask).ellipse(box, fill=round(255 * light))
        picture.paste("#ffffff", (0, 0), mask)
    return picture


def portrait(size: int, pose: Pose) -> Image.Image:
    """One person, square."""
    big = size * OVERSAMPLING
    picture = backdrop((big, big), "#f3d9b8", "#e6a98a", [(0.5, 0.44, 0.4, 0.28), (0.5, 0.44, 0.31, 0.2)])
    draw_person(picture, WOMAN, pose, *_place(big))
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def _place(size: int) -> tuple[Point, float]:
    """The centre of a portrait's face and half its width."""
    return (size * 0.5, size * 0.43), size * 0.165


def portrait_depth(size: int) -> Image.Image:
    """How near everything in the portrait is, as a depth node shows it: brighter is nearer."""
    big = size * OVERSAMPLING
    picture = Image.new("RGB", (big, big), (DEPTH_BACKDROP,) * 3)
    pen = Pen(picture, *_place(big))
    _long_hair_behind(pen, DEPTH)
    _neck(pen, pen, DEPTH)
    _shoulders(pen, DEPTH)
    pen.shape(FACE, DEPTH.skin)
    for width, strength in ((0.7, 0.3), (0.2, 0.5)):  # the face, then its nose, stand out
        pen.soft(0, 0.25, width, 1.4 * width, DEPTH_NOSE, strength)
    _long_hair_front(pen, replace(DEPTH, hair="#d0d0d0", hair_light="#d0d0d0"))
    return picture.resize((size, size), Image.Resampling.LANCZOS).convert("L")


def face_mask(size: int) -> Image.Image:
    """White over the portrait's head and hair, however it sways, with a soft edge."""
    mask = Image.new("RGB", (size, size))
    centre, unit = _place(size)
    Pen(mask, centre, unit).oval(0, 0.2, 1.7, 2.05, "#ffffff")
    return mask.convert("L").filter(ImageFilter.GaussianBlur(0.06 * unit))


def pair(width: int, height: int) -> Image.Image:
    """Two people side by side."""
    big = (width * OVERSAMPLING, height * OVERSAMPLING)
    discs = [(0.48, 0.46, 0.4, 0.22), (width / height - 0.48, 0.46, 0.4, 0.22)]
    picture = backdrop(big, "#cfe3e6", "#8fb9c4", discs)
    places = ((WOMAN, 0.48, Pose(tilt=2.0)), (MAN, width / height - 0.48, Pose(tilt=-2.0, nod=-0.08)))
    for look, x, pose in places:
        draw_person(picture, look, pose, (big[1] * x, big[1] * 0.45), big[1] * 0.158)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
