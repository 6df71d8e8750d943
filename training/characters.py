"""Choose the looks of a cartoon character and its room from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

MOUTH_INTERIOR: Color = (112, 0, 44)
"""The inside of every mouth. No other part of a scene has a similar color, so mouth pixels can be counted."""

_SKINS: tuple[Color, ...] = (
    (255, 224, 198),
    (248, 208, 178),
    (238, 192, 154),
    (222, 172, 132),
    (202, 148, 110),
    (178, 124, 90),
    (152, 104, 78),
    (138, 96, 72),
)
_HAIRS: tuple[Color, ...] = (
    (42, 46, 54),
    (68, 60, 50),
    (104, 78, 52),
    (140, 96, 56),
    (182, 104, 54),
    (226, 180, 100),
    (240, 212, 150),
    (176, 176, 184),
    (72, 84, 124),
    (60, 122, 120),
    (214, 130, 150),
    (140, 110, 180),
)
_IRISES: tuple[Color, ...] = ((96, 70, 46), (60, 110, 160), (70, 130, 90), (110, 116, 124), (150, 104, 50))
_SHIRTS: tuple[Color, ...] = (
    (70, 110, 170),
    (60, 140, 130),
    (230, 190, 90),
    (224, 132, 92),
    (120, 150, 90),
    (150, 124, 180),
    (238, 236, 228),
    (74, 84, 104),
    (206, 120, 140),
    (110, 170, 200),
)
_WALLS: tuple[tuple[Color, Color], ...] = (
    ((188, 216, 232), (150, 186, 210)),
    ((236, 222, 196), (214, 192, 160)),
    ((200, 224, 206), (160, 194, 172)),
    ((226, 208, 222), (194, 172, 196)),
    ((248, 214, 190), (226, 182, 156)),
    ((176, 190, 208), (136, 150, 176)),
    ((170, 206, 204), (128, 168, 168)),
    ((214, 214, 208), (180, 180, 176)),
)
HAIR_STYLES = ("crop", "part", "bob", "long", "bun", "curls", "quiff", "pony", "fringe", "waves", "bald")
SHIRT_STYLES = ("tee", "collar", "hoodie", "blazer")
BEARDS = ("full", "stubble", "goatee", "moustache")
PROPS = ("window", "lamp", "shelf", "plant", "picture", "disc")


@dataclass(frozen=True)
class Prop:
    """A large, low-contrast object on the wall; position and size in picture widths."""

    kind: str
    x: float
    y: float
    size: float
    color: Color
    accent: Color


@dataclass(frozen=True)
class Character:
    """The looks of one drawn person and of the room; lengths in picture widths, independent of the size in pixels."""

    seed: int
    skin: Color
    lips: Color
    hair: Color
    iris: Color
    hair_style: str
    face_width: float  # half the width of the head
    face_height: float  # half the height of the head
    jaw: float  # 0 pointed … 1 square
    eye_size: float
    eye_gap: float  # from the middle of the face to the middle of an eye
    eye_tilt: float
    brow_thickness: float
    brow_arch: float
    nose_size: float
    ear_size: float
    lip_fullness: float
    smile: float
    lashes: bool
    glasses: Color | None
    beard: str | None
    earrings: Color | None
    shirt_style: str
    shirt: Color
    under: Color  # the color visible in the collar
    shoulder_width: float
    light: int  # -1 from the left, 1 from the right
    wall: tuple[Color, Color]
    props: tuple[Prop, ...]


def blend(first: Color, second: Color, share: float) -> Color:
    """Mix `share` (0 to 1) of `second` into `first`."""
    mixed = [round(a + (b - a) * share) for a, b in zip(first, second, strict=True)]
    return mixed[0], mixed[1], mixed[2]


def darker(color: Color, share: float) -> Color:
    """Return a shade of a color, slightly bluish like a shadow."""
    return blend(color, (36, 46, 66), share)


def lighter(color: Color, share: float) -> Color:
    """Return a tint of a color, slightly warm like a light."""
    return blend(color, (255, 250, 236), share)


def _pick(rng: np.random.Generator, choices: tuple[Color, ...], spread: float = 7.0) -> Color:
    """Choose one of the colors and vary it slightly, so that two characters rarely share it."""
    moved = np.array(choices[rng.integers(len(choices))]) + rng.normal(0, spread) + rng.normal(0, spread / 2, 3)
    red, green, blue = moved.clip(30, 255)
    return round(red), round(green), round(blue)


def _room(rng: np.random.Generator) -> tuple[tuple[Color, Color], tuple[Prop, ...]]:
    """Choose the wall's two colors and the objects on it."""
    top, bottom = _WALLS[rng.integers(len(_WALLS))]
    places = [(0.10, 0.24), (0.90, 0.24), (0.06, 0.62), (0.94, 0.62)]
    chosen = rng.permutation(len(places))[: rng.integers(2, 5)]
    kinds = rng.permutation(len(PROPS))
    props = []
    for kind, index in zip(kinds, chosen, strict=False):
        x, y = np.array(places[index]) + rng.normal(0, 0.025, 2)
        tone = blend(top, bottom, 0.5)
        warm = lighter(tone, float(rng.uniform(0.3, 0.55)))
        deep = darker(tone, float(rng.uniform(0.16, 0.3)))
        colors = (warm, deep) if rng.random() < 0.5 else (deep, warm)
        props.append(Prop(PROPS[kind], float(x), float(y), float(rng.uniform(0.15, 0.22)), *colors))
    return (top, bottom), tuple(props)


def make_character(seed: int) -> Character:
    """Return the character of a seed, always the same. Seeds from 1,000,000 on are never used for training."""
    rng = np.random.Generator(np.random.PCG64([seed, 0x636861]))
    skin = _pick(rng, _SKINS, 4.0)
    hair = _pick(rng, _HAIRS)
    style = HAIR_STYLES[rng.integers(len(HAIR_STYLES))]
    soft = style in ("bob", "long", "bun", "pony", "waves") or (style in ("curls", "fringe") and rng.random() < 0.5)
    beard = BEARDS[rng.integers(len(BEARDS))] if not soft and rng.random() < 0.45 else None
    wall, props = _room(rng)
    return Character(
        seed=seed,
        skin=skin,
        lips=blend(skin, (206, 74, 92), float(rng.uniform(0.5, 0.72) if soft else rng.uniform(0.36, 0.5))),
        hair=hair,
        iris=_pick(rng, _IRISES),
        hair_style=style,
        face_width=float(rng.uniform(0.215, 0.245)),
        face_height=float(rng.uniform(0.285, 0.305)),
        jaw=float(rng.uniform(0.1, 0.55) if soft else rng.uniform(0.35, 1.0)),
        eye_size=float(rng.uniform(0.052, 0.062)),
        eye_gap=float(rng.uniform(0.094, 0.108)),
        eye_tilt=float(rng.uniform(-0.08, 0.14)),
        brow_thickness=float(rng.uniform(0.018, 0.024) if soft else rng.uniform(0.023, 0.034)),
        brow_arch=float(rng.uniform(0.012, 0.03)),
        nose_size=float(rng.uniform(0.026, 0.04)),
        ear_size=float(rng.uniform(0.042, 0.056)),
        lip_fullness=float(rng.uniform(0.85, 1.2) if soft else rng.uniform(0.6, 0.9)),
        smile=float(rng.uniform(0.2, 1.0)),
        lashes=soft,
        glasses=_pick(rng, ((56, 58, 74), (120, 84, 60), (60, 90, 130))) if rng.random() < 0.2 else None,
        beard=beard,
        earrings=_pick(rng, ((240, 206, 110), (226, 230, 236))) if soft and rng.random() < 0.5 else None,
        shirt_style=SHIRT_STYLES[rng.integers(len(SHIRT_STYLES))],
        shirt=_pick(rng, _SHIRTS),
        under=_pick(rng, _SHIRTS),
        shoulder_width=float(rng.uniform(0.36, 0.42) if soft else rng.uniform(0.40, 0.47)),
        light=int(rng.choice((-1, 1))),
        wall=wall,
        props=props,
    )
