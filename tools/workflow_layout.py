"""Place the nodes of the pack's workflows on the canvas: stacks, columns, and groups around them.

Sizes are in the graph's units, a node's height is without its title bar.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

Link = tuple[int, int]  # (node id, output number)


@dataclass(frozen=True)
class Node:
    """A node: widget values and links by input name; other widgets keep their defaults. x, y: its place, see `stack`.

    label_of: by input, its name in a form (app mode).
    """

    id: int
    type: str
    height: int
    widgets: dict[str, Any] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    title: str = ""
    color: tuple[str, str] | None = None
    label_of: dict[str, str] = field(default_factory=dict)
    x: int = 0
    y: int = 0
    width: int = 0


@dataclass(frozen=True)
class Group:
    """A colored frame with a title around nodes that have their place; `room`: more of it below them."""

    title: str
    color: str
    nodes: tuple[Node, ...]
    room: int = 0

    @property
    def bounding(self) -> tuple[int, int, int, int]:
        """Left, top, width and height."""
        left, right = min(n.x for n in self.nodes) - PAD, max(n.x + n.width for n in self.nodes) + PAD
        top, bottom = min(n.y for n in self.nodes) - TITLE - HEAD, max(n.y + n.height for n in self.nodes) + PAD
        return left, top, right - left, bottom - top + self.room


@dataclass(frozen=True)
class Form:
    """What app mode shows: the inputs in order as (node id, input, its height or None), and the nodes of the result."""

    inputs: tuple[tuple[int, str, int | None], ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Design:
    """One workflow. name: of its API file; title: of the file that a user sees.

    note, note_zh: Markdown in English and Chinese. favorites: inputs that the panel beside the graph shows. form: None
    for a workflow that opens as a graph.
    """

    name: str
    title: str
    groups: tuple[Group, ...]
    note: str
    note_zh: str
    favorites: tuple[tuple[int, str], ...] = ()
    form: Form | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in the order of the groups."""
        return tuple(node for group in self.groups for node in group.nodes)


# All graphs lie in this frame: the frontend opens a template with three quarters of the window around its nodes, and
# draws no text below a zoom of 0.571. That is reached at 1440 x 900 by a graph of 1890 x 1181.
WIDTH, TOP, BOTTOM = 1850, 40, 1190
TITLE, HEAD, PAD, GAP = 30, 40, 15, 10  # title bar; title of a group; between a group and its nodes; between nodes
BETWEEN = 12  # between groups, beside their nodes' PAD
ABOVE = PAD + BETWEEN + HEAD  # from the nodes of a group to those of the one below
ROOM = 160  # below the sampler, whose player may grow by it

# A node's least height in the frontend that needs more for it (0.33's canvas, or Nodes 2.0 with a file missing).
HEIGHTS = {
    "UNETLoader": 86,
    "LoraLoaderModelOnly": 114,
    "VAELoader": 86,
    "CLIPVisionLoader": 86,
    "CLIPLoader": 114,
    "LoadAudio": 162,
    "LoadImageMask": 358,
    "InfiniteTalkAudioEncoderLoader": 110,
    "InfiniteTalkSpeechEncode": 78,
    "InfiniteTalkSpeakers": 470,
    "InfiniteTalkModelLoader": 110,
    "InfiniteTalkQuality": 158,
    "InfiniteTalkGuidance": 274,
    "InfiniteTalkSDEditStrength": 110,
    "InfiniteTalkPinnedRegion": 86,
    "InfiniteTalkUni3CLoader": 110,
    "InfiniteTalkUni3CCamera": 182,
    "InfiniteTalkCameraPath": 500,
    "InfiniteTalkStepCache": 138,
    "InfiniteTalkVideoFormat": 142,
    "InfiniteTalkVideoFrames": 114,
    "InfiniteTalkLoadSource": 114,
    "InfiniteTalkLoadVoice": 94,
    "PreviewImage": 258,
}


def node(number: int, kind: str, height: int = 0, **rest: Any) -> Node:
    """Return a node of its kind's height, or of `height`."""
    return Node(number, kind, height or HEIGHTS[kind], **rest)


def stack(x: int, width: int, *nodes: Node, top: int = TOP) -> tuple[Node, ...]:
    """Put nodes below each other; top: the upper edge of the first one's title bar."""
    placed = []
    for each in nodes:
        placed.append(replace(each, x=x, y=top + TITLE, width=width))
        top += TITLE + each.height + GAP
    return tuple(placed)


def below(*nodes: Node) -> int:
    """Return the upper edge of the first title bar in a group that comes below the group of these nodes."""
    return max(n.y + n.height for n in nodes) + ABOVE


def filled(each: Node, to: int, top: int) -> Node:
    """Return the node with the height from `top`, the upper edge of its title bar, to `to`."""
    return replace(each, height=to - top - TITLE)


@dataclass(frozen=True)
class Columns:
    """Widths of the nodes in each column: note, models, `count` ones between; the sampler takes the rest."""

    note: int
    models: int
    between: int
    count: int

    @property
    def models_x(self) -> int:
        """Left edge of the models' nodes."""
        return self.note + BETWEEN + PAD

    def x(self, number: int) -> int:
        """Left edge of the nodes in the column `number` between models and sampler; the third has its own groups."""
        apart = PAD + BETWEEN if number >= 2 and self.count > 2 else 0
        return self.models_x + self.models + PAD + BETWEEN + PAD + number * (self.between + PAD) + apart

    @property
    def sampler_x(self) -> int:
        """Left edge of the sampler."""
        return self.x(self.count) + BETWEEN + PAD


TWO = Columns(note=300, models=320, between=300, count=2)
THREE = Columns(note=250, models=280, between=275, count=3)
