"""Fingerprints of ComfyUI's objects.

MODEL, VAE, CLIP vision and SAMPLER come from other nodes and change while ComfyUI loads, quantizes and patches them. So
their fingerprint is that of the graph upstream: its nodes and their settings, what each node returns from IS_CHANGED,
the content of the files that it names, and the index in a list. Everything else is fingerprinted by content. An object
for which neither works gets a unique fingerprint, so its run is never found again.
"""

from __future__ import annotations

import enum
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import folder_paths
from comfy_execution.utils import get_executing_context

import nodes as comfyui_nodes

from ....infinitetalk_core.fingerprint import FileFingerprints, describe, key_of
from ..model.loaded_files import Files

FOLDER_MARKS = ("config.json", "model_index.json")  # a folder with one of these is a model
FOLDER_FILES = 1000  # upper limit; a model folder has some dozens
# Class attribute of our nodes whose loaded objects carry the fingerprint of their files.
TRACKS_ITS_FILES = "tracks_its_files"


def never_again() -> dict[str, str]:
    """Return a unique fingerprint."""
    return {"unknown": uuid.uuid4().hex}


class TextUse(enum.Enum):
    """What a text input of a node may name, depending on how the text is used."""

    NO_FILE = "no file"
    FILE = "a file"  # a choice of a loader, or text that is passed to one
    OWN_FILE = "a file of ours"  # a choice of one of our loaders (`TRACKS_ITS_FILES`)


@dataclass(frozen=True)
class Upstream:
    """The graph upstream of an input.

    fingerprint: JSON. files: the files that its nodes load once and keep. unknown: the reason why the same graph may
    give another result the next time, or None.
    """

    fingerprint: Any
    files: Files
    unknown: str | None = None


@dataclass
class _Walk:
    """Results of walking a graph. lists: whether a node outputs lists. known: keys of the nodes visited so far."""

    files: Files = field(default_factory=dict)
    lists: bool = False
    unknown: str | None = None
    known: dict[tuple[str, TextUse], str] = field(default_factory=dict)


class Graph:
    """The prompt that a node runs in. hidden: the node's, with its id and the prompt. files: file fingerprints."""

    def __init__(self, hidden: Any, files: FileFingerprints) -> None:
        self._files = files
        self._nodes: Any = getattr(hidden, "dynprompt", None)  # None where `execute` is called from Python
        self._id: str | None = getattr(hidden, "unique_id", None)

    def upstream_of(self, name: str) -> Upstream:
        """Return the graph upstream of the input `name` of the node.

        Its fingerprint is equal for the same graph with the same file contents; node ids, titles and file names do not
        count. Without a prompt (`execute` called from Python) it is unique.
        """
        link: Any = None
        if self._nodes is not None and self._id is not None:
            link = self._nodes.get_node(self._id)["inputs"].get(name)
        if self._nodes is None or not self._is_link(link):
            return Upstream(never_again(), {}, "it was not made by a graph")
        walk = _Walk()
        self._visit((str(link[0]), TextUse.NO_FILE), walk)
        fingerprint: Any = self._linked(link, walk, TextUse.NO_FILE)
        if walk.lists:
            context = get_executing_context()
            fingerprint = [fingerprint, None if context is None else context.list_index]
        return Upstream(never_again() if walk.unknown else fingerprint, walk.files, walk.unknown)

    def content(self, name: str, value: Any) -> Upstream:
        """Return the fingerprint of a conditioning `value` that is connected to the input `name`, by its content.

        Where it holds an object that cannot be read, such as a ControlNet, the upstream graph is added.
        """
        unreadable: list[str] = []

        def describe_unknown(part: Any) -> Any:
            if type(part).__module__ == "comfy.clip_vision":  # output of a CLIP vision model: its attributes
                return describe(vars(part), describe_unknown)
            unreadable.append(type(part).__name__)
            return type(part).__name__

        content = describe(value, describe_unknown)
        if not unreadable:
            return Upstream(content, {})
        upstream = self.upstream_of(name)
        return replace(upstream, fingerprint=[content, upstream.fingerprint])

    def _is_link(self, value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) == 2
            and isinstance(value[1], int)
            and isinstance(value[0], (str, int))
            and self._nodes.has_node(str(value[0]))
        )

    def _linked(self, link: list[Any], walk: _Walk, use: TextUse) -> dict[str, Any]:
        return {"node": walk.known.get((str(link[0]), use)), "output": link[1]}

    def _visit(self, start: tuple[str, TextUse], walk: _Walk) -> None:
        """Compute the keys of a node and of all nodes upstream, sources first.

        Iterative, since long chains of nodes would exceed the recursion limit.
        """
        stack = [start]
        visited: dict[tuple[str, TextUse], dict[str, TextUse]] = {}  # -> what the texts of the node's inputs may name
        while stack:
            entry = stack[-1]
            if entry in visited or entry in walk.known:
                if entry not in walk.known:
                    walk.known[entry] = self._key(entry[0], visited[entry], walk)
                stack.pop()
                continue
            node = self._nodes.get_node(entry[0])
            visited[entry] = _uses(_class_of(node), node["inputs"], entry[1])
            stack += [source for source in self._sources(entry[0], visited[entry]) if source not in visited]

    def _sources(self, node_id: str, uses: dict[str, TextUse]) -> list[tuple[str, TextUse]]:
        """Return the nodes connected to a node's inputs, and those into which it was expanded."""
        node = self._nodes.get_node(node_id)
        found = [(str(link[0]), uses[name]) for name, value in node["inputs"].items() for link in self._links_in(value)]
        parents = getattr(self._nodes, "ephemeral_parents", {})
        return [*found, *((child, TextUse.NO_FILE) for child, parent in parents.items() if parent == node_id)]

    def _links_in(self, value: Any) -> Iterator[list[Any]]:
        if self._is_link(value):
            yield value
        elif isinstance(value, (list, tuple, dict)):
            for item in value.values() if isinstance(value, dict) else value:
                yield from self._links_in(item)

    def _key(self, node_id: str, uses: dict[str, TextUse], walk: _Walk) -> str:
        """Return the key of a node; the keys of its sources must be in `walk.known`. uses: from `_uses`."""
        node = self._nodes.get_node(node_id)
        cls, kind = _class_of(node), node["class_type"]
        own = getattr(cls, TRACKS_ITS_FILES, False)
        walk.lists |= any(getattr(cls, "OUTPUT_IS_LIST", None) or ())
        # ComfyUI stores `is_changed` only if its output cache evaluates it; with the cache off it is missing.
        changes = None if own else node.get("is_changed", math.nan if _reports_changes(cls) else None)
        if not _is_comparable(changes):
            walk.unknown = f"{kind} says that it is another one each time"
        # A node that reports its changes reloads its files, so they are not compared with the loaded object.
        kept = walk.files if changes is None else {}
        inputs = {name: self._value(value, walk, kept, uses[name], kind) for name, value in node["inputs"].items()}
        return key_of([kind, inputs, str(changes)])

    def _value(self, value: Any, walk: _Walk, kept: Files, use: TextUse, kind: str) -> Any:
        if self._is_link(value):
            return self._linked(value, walk, use)
        if isinstance(value, (list, tuple)):
            return [self._value(item, walk, kept, use, kind) for item in value]
        if isinstance(value, dict):
            return {str(name): self._value(item, walk, kept, use, kind) for name, item in value.items()}
        if isinstance(value, str) and use is not TextUse.NO_FILE:
            return self._text(value, walk, kept, use)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        walk.unknown = f"{kind} was handed a {type(value).__name__}"  # comes from a node that expands into others
        return type(value).__name__

    def _text(self, text: str, walk: _Walk, kept: Files, use: TextUse) -> Any:
        """Return the fingerprints of the files that `text` names, or `text` itself if it names none.

        For our own loaders just "a file", since the loaded object carries the fingerprint.
        """
        if use is TextUse.FILE and leads_elsewhere(text):
            walk.unknown = f"{text} lies outside of ComfyUI's folders"
            return text
        paths = list(files_named(text))
        if use is TextUse.OWN_FILE and paths:
            return "a file"
        try:
            named = {path: self._files.of(path) for path in paths}
        except OSError as error:
            walk.unknown = f"the file {text} cannot be read ({error.strerror or error})"
            return text
        kept.update(named)
        return {"files": sorted(fingerprint for _, fingerprint in named.values())} if named else text


def _class_of(node: dict[str, Any]) -> Any:
    return comfyui_nodes.NODE_CLASS_MAPPINGS.get(node["class_type"])


def _reports_changes(cls: Any) -> bool:
    """Return whether a node class defines IS_CHANGED, or fingerprint_inputs for a V3 node."""
    if hasattr(cls, "GET_SCHEMA"):
        own = (base for base in cls.__mro__ if not base.__module__.startswith("comfy_api"))
        return any("fingerprint_inputs" in vars(base) for base in own)
    return hasattr(cls, "IS_CHANGED")


def _is_comparable(changes: Any) -> bool:
    """Return whether a node's IS_CHANGED value can be compared later: False for NaN and for objects."""
    values = changes if isinstance(changes, (list, tuple)) else [changes]
    return all(
        value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and not math.isnan(value))
        for value in values
    )


def _uses(cls: Any, inputs: Mapping[str, Any], use: TextUse) -> dict[str, TextUse]:
    """Return what the text of each input may name.

    use: what the texts of inputs that are no choices may name; it depends on where the node's output goes.
    """
    choices = choices_of(cls, inputs)
    file = TextUse.OWN_FILE if getattr(cls, TRACKS_ITS_FILES, False) else TextUse.FILE
    return {name: file if name in choices else use for name in inputs}


def choices_of(cls: Any, inputs: Iterable[str]) -> set[str]:
    """Return the inputs of a node class that are choices (as file inputs are), or whose type it does not declare."""
    try:
        groups = cls.INPUT_TYPES()
    except Exception:  # other packs' code may raise anything; it has been run before, so this adds no risk
        return set(inputs)
    specs = {name: spec for group in ("required", "optional") for name, spec in groups.get(group, {}).items()}
    return {name for name in inputs if name not in specs or _is_choice(specs[name])}


def _is_choice(spec: Any) -> bool:
    """Return whether an input specification of INPUT_TYPES is a choice."""
    kind = spec[0] if isinstance(spec, (list, tuple)) and spec else spec
    if isinstance(kind, (list, tuple)):
        return True
    return isinstance(kind, str) and (kind.startswith("COMFY_DYNAMICCOMBO") or "COMBO" in kind.split(","))


def files_named(text: str) -> Iterator[Path]:
    """Yield the files that a choice names in ComfyUI's model folders or input folder; for a model folder, its files.

    Only relative names that stay inside those folders are looked up, so no network path is accessed.
    """
    name, base = folder_paths.annotated_filepath(text)
    if not _is_inside(name):
        return
    roots = [root for kind in list(folder_paths.folder_names_and_paths) for root in _roots(kind)]
    for root in dict.fromkeys([*roots, base or folder_paths.get_input_directory()]):
        path = Path(root, name)
        try:
            if path.is_file():
                yield path
            elif any((path / mark).is_file() for mark in FOLDER_MARKS):
                files = sorted(file for file in path.rglob("*") if file.is_file())
                yield from files[:FOLDER_FILES]
        except (OSError, ValueError):  # too long, or with characters that file names cannot have
            continue


def leads_elsewhere(name: str) -> bool:
    """Return whether a name starts with a root, a drive or a network host, on any operating system."""
    return name.startswith(("/", "\\")) or bool(PureWindowsPath(name).drive)


def _is_inside(name: str) -> bool:
    """Return whether a name is relative and names something inside its folder, without `..`."""
    if not name.strip() or leads_elsewhere(name):
        return False
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    return ".." not in parts and os.path.normpath(name) != "."


def _roots(kind: str) -> list[str]:
    return folder_paths.folder_names_and_paths[kind][0]
