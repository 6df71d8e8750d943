"""What the host's objects are known by.

MODEL, VAE, CLIP vision and SAMPLER come from other nodes, in forms that change while ComfyUI loads, quantises and
patches them. What does not change is the graph that they come from: its nodes and their settings, what each node says
of its own changes (IS_CHANGED), the content of the files that it names, and the place in a list. Everything else is
known by its content. What can be known in neither way gets a fingerprint of its own, so its run is never found again.
"""

from __future__ import annotations

import contextlib
import enum
import math
import os
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import folder_paths
from comfy_execution.utils import get_executing_context

import nodes as comfyui_nodes

from ...infinitetalk_core.cache import FileStamp
from ...infinitetalk_core.errors import InputError
from ...infinitetalk_core.fingerprint import FileFingerprints, describe, key_of

FOLDER_MARKS = ("config.json", "model_index.json")  # what makes a folder a model
FOLDER_FILES = 1000  # such a one has some dozens
OWN = "knows_its_files"  # a class attribute: what a node of ours read is known by what it loaded

Files = dict[Path, tuple[FileStamp, str]]  # with their fingerprints


def never_again() -> dict[str, str]:
    """A fingerprint that nothing else has."""
    return {"unknown": uuid.uuid4().hex}


class Names(enum.Enum):
    """What the texts of a node may name, by what they are used for."""

    NO_FILE = "no file"
    FILE = "a file"  # a loader takes its name from there
    OWN_FILE = "a file of ours"


@dataclass(frozen=True)
class Upstream:
    """The graph behind an input. fingerprint: JSON; files: those that its nodes load once and keep; unknown: why the
    same graph may give something else the next time, None if it does not."""

    fingerprint: Any
    files: Files
    unknown: str | None = None


@dataclass
class _Walk:
    """What is found on the way through a graph. lists: a node gives lists; known: keys of nodes."""

    files: Files = field(default_factory=dict)
    lists: bool = False
    unknown: str | None = None
    known: dict[tuple[str, Names], str] = field(default_factory=dict)


class Graph:
    """The prompt that a node runs in. hidden: the node's, with its id and the prompt. files: what is known of files."""

    def __init__(self, hidden: Any, files: FileFingerprints) -> None:
        self._files = files
        self._nodes = getattr(hidden, "dynprompt", None)
        self._id = getattr(hidden, "unique_id", None)

    def behind(self, name: str) -> Upstream:
        """The graph behind the input `name` of the node. Its fingerprint is equal for the same graph over the same
        files; ids, titles and file names do not count. Without a prompt (the node's code called by a program) nothing
        is known."""
        link = None if self._nodes is None or self._id is None else self._nodes.get_node(self._id)["inputs"].get(name)
        if self._nodes is None or not self._is_link(link):
            return Upstream(never_again(), {}, "it was not made by a graph")
        walk = _Walk()
        self._visit((str(link[0]), Names.NO_FILE), walk)
        fingerprint: Any = self._linked(link, walk, Names.NO_FILE)
        if walk.lists:
            context = get_executing_context()
            fingerprint = [fingerprint, None if context is None else context.list_index]
        return Upstream(never_again() if walk.unknown else fingerprint, walk.files, walk.unknown)

    def content(self, name: str, value: Any) -> Upstream:
        """A conditioning that came in by the input `name`, by its content. Where something in it cannot be read, such
        as a ControlNet, by the graph behind it as well."""
        unread: list[str] = []

        def others(part: Any) -> Any:
            if type(part).__module__ == "comfy.clip_vision":  # what CLIP vision gave: its attributes
                return describe(vars(part), others)
            unread.append(type(part).__name__)
            return type(part).__name__

        content = describe(value, others)
        if not unread:
            return Upstream(content, {})
        upstream = self.behind(name)
        return replace(upstream, fingerprint=[content, upstream.fingerprint])

    def _is_link(self, value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) == 2
            and isinstance(value[1], int)
            and isinstance(value[0], (str, int))
            and self._nodes.has_node(str(value[0]))
        )

    def _linked(self, link: list[Any], walk: _Walk, names: Names) -> dict[str, Any]:
        return {"node": walk.known.get((str(link[0]), names)), "output": link[1]}

    def _visit(self, start: tuple[str, Names], walk: _Walk) -> None:
        """Find the keys of a node and all nodes before it: those first, without recursion, since chains are long."""
        open_nodes, begun = [start], set()
        while open_nodes:
            place = open_nodes[-1]
            if place in begun or place in walk.known:
                if place not in walk.known:
                    walk.known[place] = self._key(*place, walk)
                open_nodes.pop()
                continue
            begun.add(place)
            open_nodes += [source for source in self._sources(*place) if source not in begun]

    def _sources(self, node_id: str, names: Names) -> list[tuple[str, Names]]:
        """The nodes that a node takes something from, and those that it was expanded to."""
        node = self._nodes.get_node(node_id)
        uses = _uses(_class_of(node), node["inputs"], names)
        found = [(str(link[0]), uses[name]) for name, value in node["inputs"].items() for link in self._links_in(value)]
        parents = getattr(self._nodes, "ephemeral_parents", {})
        return [*found, *((child, Names.NO_FILE) for child, parent in parents.items() if parent == node_id)]

    def _links_in(self, value: Any) -> Iterator[list[Any]]:
        if self._is_link(value):
            yield value
        elif isinstance(value, (list, tuple, dict)):
            for item in value.values() if isinstance(value, dict) else value:
                yield from self._links_in(item)

    def _key(self, node_id: str, names: Names, walk: _Walk) -> str:
        """Of a node whose sources are known."""
        node = self._nodes.get_node(node_id)
        cls, kind = _class_of(node), node["class_type"]
        uses = _uses(cls, node["inputs"], names)
        own = getattr(cls, OWN, False)
        walk.lists |= any(getattr(cls, "OUTPUT_IS_LIST", None) or ())
        # ComfyUI notes it where its cache of outputs asks for it; without a cache nobody asks.
        changes = None if own else node.get("is_changed", math.nan if _tells_changes(cls) else None)
        if not _is_steady(changes):
            walk.unknown = f"{kind} says that it is another one each time"
        # A node that tells its changes loads its files again.
        keeps = walk.files if changes is None else {}
        inputs = {name: self._value(value, walk, keeps, uses[name], kind) for name, value in node["inputs"].items()}
        return key_of([kind, inputs, str(changes)])

    def _value(self, value: Any, walk: _Walk, keeps: Files, names: Names, kind: str) -> Any:
        if self._is_link(value):
            return self._linked(value, walk, names)
        if isinstance(value, (list, tuple)):
            return [self._value(item, walk, keeps, names, kind) for item in value]
        if isinstance(value, dict):
            return {str(name): self._value(item, walk, keeps, names, kind) for name, item in value.items()}
        if isinstance(value, str) and names is not Names.NO_FILE:
            return self._text(value, walk, keeps, names)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        walk.unknown = f"{kind} was handed a {type(value).__name__}"  # by a node that expands into others
        return type(value).__name__

    def _text(self, text: str, walk: _Walk, keeps: Files, names: Names) -> Any:
        """A text that may name files: their content, where it does."""
        if names is Names.FILE and leads_elsewhere(text):
            walk.unknown = f"{text} lies outside of ComfyUI's folders"
            return text
        paths = list(files_named(text))
        if names is Names.OWN_FILE and paths:
            return "a file"
        try:
            named = {path: self._files.of(path) for path in paths}
        except OSError as error:
            walk.unknown = f"the file {text} cannot be read ({error.strerror or error})"
            return text
        keeps.update(named)
        return {"files": sorted(fingerprint for _, fingerprint in named.values())} if named else text


def _class_of(node: dict[str, Any]) -> Any:
    return comfyui_nodes.NODE_CLASS_MAPPINGS.get(node["class_type"])


def _tells_changes(cls: Any) -> bool:
    """Whether a node class has a say in whether it is run again: IS_CHANGED, or fingerprint_inputs of a V3 node."""
    if hasattr(cls, "GET_SCHEMA"):
        own = (base for base in cls.__mro__ if not base.__module__.startswith("comfy_api"))
        return any("fingerprint_inputs" in vars(base) for base in own)
    return hasattr(cls, "IS_CHANGED")


def _is_steady(changes: Any) -> bool:
    """Whether what a node says of its changes can be compared: False for NaN and for objects."""
    values = changes if isinstance(changes, (list, tuple)) else [changes]
    return all(
        value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and not math.isnan(value))
        for value in values
    )


def _uses(cls: Any, inputs: Mapping[str, Any], names: Names) -> dict[str, Names]:
    """What the text of each input may name. names: what the texts of the node may, by what its output is used for."""
    choices = choices_of(cls, inputs)
    file = Names.OWN_FILE if getattr(cls, OWN, False) else Names.FILE
    return {name: file if name in choices else names for name in inputs}


def choices_of(cls: Any, inputs: Iterable[str]) -> set[str]:
    """The inputs of a node class that are choices, as files are chosen, or of a kind that it does not tell."""
    try:
        groups = cls.INPUT_TYPES()
    except Exception:  # other people's code, which has been run to get here
        return set(inputs)
    told = {name: spec for group in ("required", "optional") for name, spec in groups.get(group, {}).items()}
    return {name for name in inputs if name not in told or _is_choice(told[name])}


def _is_choice(spec: Any) -> bool:
    """Whether an input's specification, as INPUT_TYPES gives it, is a choice."""
    kind = spec[0] if isinstance(spec, (list, tuple)) and spec else spec
    if isinstance(kind, (list, tuple)):
        return True
    return isinstance(kind, str) and (kind.startswith("COMFY_DYNAMICCOMBO") or "COMBO" in kind.split(","))


def files_named(text: str) -> Iterator[Path]:
    """The files that a choice names: in any of ComfyUI's model folders, or among its inputs; of a model that is a
    folder, its files. Only names that are relative and stay inside are looked at, so no other machine is asked."""
    name, base = folder_paths.annotated_filepath(text)
    if not _is_inside(name):
        return
    roots = [root for kind in list(folder_paths.folder_names_and_paths) for root in _roots(kind)]
    for root in dict.fromkeys([*roots, base or folder_paths.get_input_directory()]):
        place = Path(root, name)
        try:
            if place.is_file():
                yield place
            elif any((place / mark).is_file() for mark in FOLDER_MARKS):
                files = sorted(file for file in place.rglob("*") if file.is_file())
                yield from files[:FOLDER_FILES]
        except (OSError, ValueError):  # too long, or with signs that no file name has
            continue


def leads_elsewhere(name: str) -> bool:
    """Whether a name begins at a root, a drive or another machine, on any system."""
    return name.startswith(("/", "\\")) or bool(PureWindowsPath(name).drive)


def _is_inside(name: str) -> bool:
    """Whether a name is relative and leads nowhere else."""
    if not name.strip() or leads_elsewhere(name):
        return False
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    return ".." not in parts and os.path.normpath(name) != "."


def _roots(kind: str) -> list[str]:
    return folder_paths.folder_names_and_paths[kind][0]


CHANGED = (
    "{} was changed on the disk after ComfyUI had loaded it, and ComfyUI goes on with what it loaded: free the memory "
    "(in the menu: unload models and clear the cache; by API: POST /free with "
    '{{"unload_models": true, "free_memory": true}}) or restart ComfyUI, and run again'
)


class LoadedFiles:
    """Which files the live models came from. ComfyUI goes on using a model whose file was replaced on the disk, and
    what is on the disk would say something else than what is in memory.

    An object is known from the first time that it is seen here. A file that was changed between its loading and that
    time is noticed if that was after the prompt began.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, Files] = weakref.WeakKeyDictionary()
        self._began_ns: int | None = None

    def begin(self) -> None:
        """A prompt begins now: none of its nodes has loaded anything yet."""
        self._began_ns = time.time_ns()

    def check(self, live: Any, files: Files) -> None:
        """Remember that `live` came from `files`. Objects that cannot be remembered are not checked.

        Raises InputError for a file that had another content when the object was loaded.
        """
        try:
            known = self._known.setdefault(live, {})
        except TypeError:
            return
        for path, (stamp, fingerprint) in files.items():
            if path not in known:
                meanwhile = self._began_ns is not None and stamp.changed_ns > self._began_ns
                known[path] = (stamp, "another one" if meanwhile else fingerprint)
            if known[path][1] != fingerprint:
                raise InputError(CHANGED.format(path.name))
            known[path] = (stamp, fingerprint)

    def changed(self) -> list[str]:
        """The files of live models that are not what they were, by their stamps, for ComfyUI's cache of outputs:
        otherwise it would give the old video without asking any node."""
        found = set()
        for files in list(self._known.values()):
            for path, (stamp, _) in files.items():
                now = None
                with contextlib.suppress(OSError):
                    now = FileStamp.of(path)
                if now != stamp:
                    found.add(f"{path}: {now}")
        return sorted(found)
