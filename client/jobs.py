"""Jobs of dub_folder.py: read from a folder or a list, and filled into a workflow."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mxf")
VOICES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")
PICKER, SAMPLER = "InfiniteTalkReferencePicker", "InfiniteTalkChunkSampler"
SPEECH_ENCODE = "InfiniteTalkSpeechEncode"
# Nodes that load a file: the input that names it, and what it may be.
LOADERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "InfiniteTalkLoadSource": ("path", PICTURES + VIDEOS),
    "InfiniteTalkLoadVoice": ("path", VOICES + VIDEOS),
    "LoadImage": ("image", PICTURES),
    "LoadVideo": ("file", VIDEOS),
    "LoadAudio": ("audio", VOICES + VIDEOS),
}
Workflow = dict[str, dict[str, Any]]


class JobError(Exception):
    """A job, or the list of jobs, is wrong; the message says in a sentence what to change."""


@dataclass(frozen=True)
class Job:
    """One video to make. settings: "NodeClass.input" -> value, on top of the workflow's."""

    name: str
    source: Path
    voice: Path
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_jobs(path: Path) -> list[Job]:
    """Return the jobs in a folder (a picture or video and a voice of one name each) or in a JSONL file.

    A line of the file: {"source": "a.png", "voice": "b.wav", "name": "optional", "set": {"NodeClass.input": value}},
    paths relative to it. Raises JobError.
    """
    if path.is_dir():
        jobs = _pairs(path)
    elif path.is_file():
        jobs = [_from_line(path, number, line) for number, line in enumerate(_lines(path), start=1) if line.strip()]
    else:
        raise JobError(f"there is no {path}; name a folder of jobs or a JSONL file")
    for name, count in Counter(job.name for job in jobs).items():
        if count > 1:
            raise JobError(f"{count} jobs are called {name!r}; give each a name of its own")
    if not jobs:
        raise JobError(f"{path} holds no pair of a picture or video and a voice with the same name")
    return jobs


def without_partner(folder: Path) -> list[str]:
    """Return the names of the sources and voices in a folder that belong to no job."""
    sources, voices = _sources_and_voices(folder)
    paired = {path.stem for path in sources} & {path.stem for path in voices}
    return sorted(path.name for path in [*sources, *voices] if path.stem not in paired)


def _sources_and_voices(folder: Path) -> tuple[list[Path], list[Path]]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    kinds = (PICTURES + VIDEOS, VOICES)
    sources, voices = ([path for path in files if path.suffix.lower() in kind] for kind in kinds)
    return sources, voices


def _pairs(folder: Path) -> list[Job]:
    sources, voice_files = _sources_and_voices(folder)
    voices: dict[str, Path] = {}
    for path in voice_files:
        other = voices.setdefault(path.stem, path)
        if other is not path:
            raise JobError(f"{other.name} and {path.name} are both the voice of {path.stem!r}: take one out")
    return [Job(path.stem, path, voices[path.stem]) for path in sources if path.stem in voices]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()  # Windows' editors put a mark in front
    except UnicodeDecodeError as error:
        raise JobError(f"{file} is no text in UTF-8: save it anew in that encoding") from error


def _from_line(file: Path, number: int, line: str) -> Job:
    where = f"line {number} of {file.name}"
    try:
        entry = json.loads(line)
        source, voice = file.parent / entry["source"], file.parent / entry["voice"]
        settings = dict(entry.get("set", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f'{where} is not {{"source": …, "voice": …}}: {error!r}') from error
    for path in (source, voice):
        if not path.is_file():
            raise JobError(f"{where}: there is no file {path}")
    name = str(entry.get("name") or (source.stem if source.stem == voice.stem else f"{source.stem}_{voice.stem}"))
    return Job(re.sub(r"[^\w.-]+", "_", name), source, voice, settings)


def fill_workflow(workflow: Workflow, job: Job, source: str, voice: str, prefix: str) -> Workflow:
    """Return a copy of the workflow that makes `job`; source and voice are names in ComfyUI's input folder.

    The files are set in the nodes that load them, found from the inputs of Reference Picker and Speech Encode. The
    video is named `prefix`/job name. Raises JobError where the workflow has no such node or the node cannot load the
    file.
    """
    filled = copy.deepcopy(workflow)
    _set_file(_loader(filled, PICKER, ("video", "image"), "source"), source)
    _set_file(_loader(filled, SPEECH_ENCODE, ("audio",), "voice"), voice)
    for node in filled.values():
        if node["class_type"] == SAMPLER:
            node["inputs"]["filename_prefix"] = f"{prefix}/{job.name}"
    for name, value in job.settings.items():
        kind, _, key = name.partition(".")
        found = [node for node in filled.values() if _short(node["class_type"]) == _short(kind)]
        if not found or not key:
            raise JobError(f"the workflow has no {name}; write it as NodeClass.input, such as {SAMPLER}.seed")
        for node in found:
            node["inputs"][key] = value
    return filled


def _short(kind: str) -> str:
    return kind.removeprefix("InfiniteTalk")


def _loader(workflow: Workflow, kind: str, inputs: tuple[str, ...], what: str) -> dict[str, Any]:
    """The one node that loads the file behind one of these inputs of the nodes of a class."""
    links = [node["inputs"].get(name) for node in workflow.values() if node["class_type"] == kind for name in inputs]
    ids = dict.fromkeys(str(link[0]) for link in links if isinstance(link, list))
    found = [workflow[i] for i in ids if workflow.get(i, {}).get("class_type") in LOADERS]
    if len(found) != 1:
        raise JobError(
            f"the workflow must have one node that loads the {what} ({', '.join(LOADERS)}), not {len(found)}"
        )
    return found[0]


def _set_file(node: dict[str, Any], name: str) -> None:
    key, suffixes = LOADERS[node["class_type"]]
    if not name.lower().endswith(suffixes):
        raise JobError(f"{node['class_type']} cannot load {name}: it takes {', '.join(suffixes)}; use another workflow")
    node["inputs"][key] = name
