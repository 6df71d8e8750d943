"""The speakers: how many, and masks of their areas in the picture, on the latent grid and on the token grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .chunks.sizes import SIZE_STEP, check_size, fit_mask_to
from .errors import InputError
from .number_lists import number_in, shortened

# The released weights know two. A third would need positions (PERSON_RANGES and its users in
# model/speaker_positions.py), an area where none is given (`half_boxes`), and inputs (nodes/speakers.py).
MOST_SPEAKERS = 2
FACE_SCALE = 0.05  # margin around each half of the picture, as in the reference
VAE_STEP = 8  # pixels per latent


@dataclass(frozen=True)
class Box:
    """A speaker's area in pixels of the source picture: columns x0 to x1, rows y0 to y1, ends excluded."""

    x0: float
    y0: float
    x1: float
    y1: float

    @staticmethod
    def of(values: object, speaker: int) -> Box:
        """Parse user input [x0, y0, x1, y1].

        Raises InputError, naming `speaker` (from 1), unless these are finite numbers.
        """
        given = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
        numbers = [number for value in given if (number := number_in(str(value))) is not None]
        if not len(numbers) == len(given) == 4:
            said = shortened(", ".join(map(str, given)) or str(values))
            raise InputError(f"speaker {speaker}'s box must be four numbers x0, y0, x1, y1, got {said}")
        return Box(*numbers)


Area = Box | Tensor  # a tensor is a ComfyUI MASK: (H, W) at the picture's size, inside where it is above 0.5


def areas_of(masks: Sequence[Tensor | None], boxes: Sequence[str]) -> tuple[Area, ...] | None:
    """Return one area per speaker from user input: a MASK (H, W) or (1, H, W), or a box as text "x0, y0, x1, y1".

    Returns None if no area is given. Raises InputError if only some speakers have an area, or one has two.
    """
    areas: list[Area] = []
    for speaker, (mask, text) in enumerate(zip(masks, boxes, strict=True), start=1):
        if mask is not None and text.strip():
            raise InputError(f"speaker {speaker} has a mask and a box; empty the box or disconnect the mask")
        if mask is not None:
            areas.append(mask)
        elif text.strip():
            areas.append(Box.of(text.replace(",", " ").split(), speaker))
    if areas and len(areas) < len(masks):
        raise InputError(f"{len(areas)} of {len(masks)} speakers have a mask or a box; give one to each, or to none")
    return tuple(areas) or None


def half_boxes(picture_size: tuple[int, int]) -> tuple[Box, Box]:
    """Return the left and right half of a picture (height, width), minus a margin of 5 %: the reference's default."""
    height, width = picture_size
    half = width // 2
    rows = int(height * FACE_SCALE), int(height * (1 - FACE_SCALE))
    left = int(half * FACE_SCALE), int(half * (1 - FACE_SCALE))
    right = int(half * FACE_SCALE + half), int(half * (1 - FACE_SCALE) + half)
    return Box(left[0], rows[0], left[1], rows[1]), Box(right[0], rows[0], right[1], rows[1])


def _paint_box(box: Box, speaker: int, picture_size: tuple[int, int]) -> Tensor:
    """Draw a box as a mask (H, W) of 0 and 1, clipped to the picture. Raises InputError if nothing is inside."""
    height, width = picture_size
    text = f"{box.x0:g}, {box.y0:g}, {box.x1:g}, {box.y1:g}"
    if not (box.x0 < box.x1 and box.y0 < box.y1):
        raise InputError(f"speaker {speaker}'s box {text} is empty: x1 must be above x0 and y1 above y0")
    if box.x0 >= width or box.y0 >= height or box.x1 <= 0 or box.y1 <= 0:
        raise InputError(f"speaker {speaker}'s box {text} lies outside the picture, which is {width} x {height} pixels")
    x0, y0, x1, y1 = (max(int(v), 0) for v in (box.x0, box.y0, box.x1, box.y1))
    mask = torch.zeros(picture_size)
    mask[y0:y1, x0:x1] = 1
    return mask


def _paint(area: Area, speaker: int, picture_size: tuple[int, int]) -> Tensor:
    if isinstance(area, Box):
        return _paint_box(area, speaker, picture_size)
    mask = area[0] if area.ndim == 3 and area.shape[0] == 1 else area
    if tuple(mask.shape) != picture_size:
        shape = " x ".join(str(n) for n in reversed(mask.shape))
        raise InputError(
            f"speaker {speaker}'s mask is {shape} but the picture is {picture_size[1]} x {picture_size[0]}: "
            "paint the mask on this picture, or resize it to the same size"
        )
    return (mask.detach().float().cpu() > 0.5).float()


def _paint_all(speakers: int, areas: Sequence[Area] | None, picture_size: tuple[int, int]) -> Tensor:
    """Return all speakers' masks (speakers, H, W) of 0 and 1 in the picture's pixels; two default to the halves."""
    if areas is None and speakers == 2:
        areas = half_boxes(picture_size)
    if areas is None or len(areas) != speakers:
        given = "none" if areas is None else len(areas)
        raise InputError(f"{speakers} speakers need {speakers} boxes or masks, one each, got {given}")
    return torch.stack([_paint(area, i + 1, picture_size) for i, area in enumerate(areas)])


def _to_latents(people: Tensor, size: tuple[int, int]) -> Tensor:
    """Convert speaker masks (S, H, W) of the picture to latent masks of speakers and background (S + 1, size / 8)."""
    background = (people.sum(dim=0, keepdim=True) == 0).float()
    fitted = fit_mask_to(torch.cat([people, background]), *size)
    grid = (size[0] // VAE_STEP, size[1] // VAE_STEP)
    return functional.interpolate(fitted[None], size=grid, mode="nearest")[0]


def speaker_masks(
    speakers: int, areas: Sequence[Area] | None, picture_size: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return one mask per speaker and one of the background, on the latent grid of the video.

    speakers: how many people are marked. areas: a Box or MASK for each; None: one speaker is the whole
    picture, two are its left and right halves. picture_size: (height, width) of the picture the areas were
    drawn on; size: (height, width) of the video, to which the masks are scaled and cropped as the picture is.
    Returns (speakers + 1, size / 8) of 0 and 1, float32 CPU. Areas may overlap: such pixels belong to both
    and not to the background. Without areas the one speaker's and the background's mask are all ones.
    Source: the reference's wan/multitalk.py, generate_infinitetalk ("construct human mask").
    Raises InputError, in one sentence, for unusable areas, including areas too small to contain a token
    (the reference divides by zero for these).
    """
    size = check_size(*size)
    if areas is None and speakers == 1:
        return torch.ones(2, size[0] // VAE_STEP, size[1] // VAE_STEP)
    people = _paint_all(speakers, areas, picture_size)
    latent = _to_latents(people, size)
    counts = token_masks(latent).sum(dim=1).tolist()
    for speaker, (person, tokens) in enumerate(zip(people, counts, strict=False), start=1):
        if not tokens:
            raise InputError(_why_lost(speaker, person, size))
    if not counts[-1]:
        raise InputError(
            "the speakers' areas cover the whole picture and leave no background: make them smaller, around the faces"
        )
    return latent


def _why_lost(speaker: int, person: Tensor, size: tuple[int, int]) -> str:
    """Return the error message for a mask (H, W) that contains no token."""
    rows, columns = person.any(dim=1).nonzero(), person.any(dim=0).nonzero()
    if not len(rows):
        return f"speaker {speaker}'s mask is empty: paint over the speaker's face"
    scale = max(size[0] / person.shape[0], size[1] / person.shape[1])
    least = math.ceil(SIZE_STEP / scale) + 1
    box_height = int(rows.max() - rows.min()) + 1
    box_width = int(columns.max() - columns.min()) + 1
    return (
        f"speaker {speaker}'s area of {box_width} x {box_height} pixels vanishes in a video of "
        f"{size[1]} x {size[0]}: make it at least {least} x {least} pixels, inside the part of the "
        "picture that the video shows"
    )


def token_masks(masks: Tensor) -> Tensor:
    """Convert masks (N, h, w) on the latent grid to (N, h/2 · w/2) on the token grid, 0 or 1, by nearest latent.

    Source: the reference's wan/modules/multitalk_model.py, WanModel.forward.
    """
    grid = (masks.shape[-2] // 2, masks.shape[-1] // 2)
    small = functional.interpolate(masks[None].float(), size=grid, mode="nearest")[0]
    return (small > 0).float().flatten(1)
