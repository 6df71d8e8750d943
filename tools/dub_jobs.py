"""What tools/dub_folder.py is to do and what of it is done: jobs, their workflows, and a state file that survives."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mxf")
VOICES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")
PICKER, SAMPLER = "InfiniteTalkReferencePicker", "InfiniteTalkChunkSampler"
# Nodes that load a file: the input that names it, and what it may be.
LOADERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "InfiniteTalkLoadSource": ("path", PICTURES + VIDEOS),
    "InfiniteTalkLoadVoice": ("path", VOICES + VIDEOS),
    "LoadImage": ("image", PICTURES),
    "LoadVideo": ("file", VIDEOS),
    "LoadAudio": ("audio", VOICES + VIDEOS),
}
STATE = "dub_folder.json"
Workflow = dict[str, dict[str, Any]]
State = Literal["waiting", "queued", "finished", "failed", "interrupted"]


class JobError(Exception):
    """What is wrong with a job or a list of them, in a sentence."""


@dataclass(frozen=True)
class Job:
    """One video to make. settings: "NodeClass.input" → value, on top of the workflow's."""

    name: str
    source: Path
    voice: Path
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_jobs(place: Path) -> list[Job]:
    """The jobs in a folder (a picture or video and a voice of one name each) or in a JSONL file.

    A line of the file: {"source": "a.png", "voice": "b.wav", "name": "optional", "set": {"NodeClass.input": value}},
    paths relative to it. Raises JobError.
    """
    if place.is_dir():
        jobs = _pairs(place)
    elif place.is_file():
        jobs = [_from_line(place, number, line) for number, line in enumerate(_lines(place), start=1) if line.strip()]
    else:
        raise JobError(f"there is no {place}; name a folder of jobs or a JSONL file")
    for name, count in Counter(job.name for job in jobs).items():
        if count > 1:
            raise JobError(f"{count} jobs are called {name!r}; give each a name of its own")
        if f"{name}.json" == STATE:
            raise JobError(f"no job can be called {name!r}: its report would replace the state; give it another name")
    if not jobs:
        raise JobError(f"{place} holds no pair of a picture or video and a voice with the same name")
    return jobs


def without_partner(folder: Path) -> list[str]:
    """The names of the sources and voices in a folder that belong to no job."""
    sources, voices = _sources_and_voices(folder)
    ours, theirs = ({path.stem for path in paths} for paths in (sources, voices))
    return sorted(path.name for path in [*sources, *voices] if path.stem not in ours & theirs)


def _sources_and_voices(folder: Path) -> tuple[list[Path], list[Path]]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    kinds = (PICTURES + VIDEOS, VOICES)
    sources, voices = ([path for path in files if path.suffix.lower() in kind] for kind in kinds)
    return sources, voices


def _pairs(folder: Path) -> list[Job]:
    sources, heard = _sources_and_voices(folder)
    voices: dict[str, Path] = {}
    for path in heard:
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


def fill(workflow: Workflow, job: Job, source: str, voice: str, prefix: str) -> Workflow:
    """A copy of the workflow that makes `job`; source and voice are names in ComfyUI's input folder.

    The files go into the nodes that load them, found from the Reference Picker and from what hears the voice. Raises
    JobError where the workflow cannot take them.
    """
    filled = copy.deepcopy(workflow)
    _put(filled, _loader(filled, (PICKER,), ("video", "image"), "source"), source)
    _put(filled, _loader(filled, ("InfiniteTalkSpeechEncode",), ("audio",), "voice"), voice)
    for node in filled.values():
        if node["class_type"] == SAMPLER:
            node["inputs"]["filename_prefix"] = f"{prefix}/{job.name}"
    for name, value in job.settings.items():
        kind, _, key = name.partition(".")
        found = [node for node in filled.values() if node["class_type"].removeprefix("InfiniteTalk") == _short(kind)]
        if not found or not key:
            raise JobError(f"the workflow has no {name}; write it as NodeClass.input, such as {SAMPLER}.seed")
        for node in found:
            node["inputs"][key] = value
    return filled


def _short(kind: str) -> str:
    return kind.removeprefix("InfiniteTalk")


def _loader(workflow: Workflow, kinds: tuple[str, ...], inputs: tuple[str, ...], what: str) -> dict[str, Any]:
    """The one node that loads the file behind an input of a node of these kinds."""
    links = [node["inputs"].get(name) for node in workflow.values() if node["class_type"] in kinds for name in inputs]
    ids = dict.fromkeys(str(link[0]) for link in links if isinstance(link, list))
    found = [workflow[i] for i in ids if workflow.get(i, {}).get("class_type") in LOADERS]
    if len(found) != 1:
        raise JobError(
            f"the workflow must have one node that loads the {what} ({', '.join(LOADERS)}), not {len(found)}"
        )
    return found[0]


def _put(workflow: Workflow, node: dict[str, Any], name: str) -> None:
    key, suffixes = LOADERS[node["class_type"]]
    if not name.lower().endswith(suffixes):
        raise JobError(f"{node['class_type']} cannot load {name}: it takes {', '.join(suffixes)}; use another workflow")
    node["inputs"][key] = name


def fingerprint(job: Job, workflow: Workflow) -> str:
    """Changes when a file of the job, its settings or the workflow do."""
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in (job.source, job.voice)]
    text = json.dumps([files, dict(job.settings), workflow], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Entry:
    """How far a job is. prompt: its id on `server` while it is queued there; video, report: files of ours."""

    state: State = "waiting"
    fingerprint: str = ""
    server: str = ""
    prompt: str = ""
    attempts: int = 0
    seconds: float = 0.0
    video: str = ""
    report: str = ""
    error: str = ""
    warnings: list[str] = field(default_factory=list)


class StateFile:
    """What is known of each job, written whole at each change: a client that is killed goes on from there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.entries = {name: Entry(**entry) for name, entry in found["jobs"].items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(f"{path} cannot be read ({error!r}); move it away to begin anew") from error

    def begin(self, jobs: Iterable[Job], workflow: Workflow) -> None:
        """Keep what is still true of these jobs: finished with their video there, or on its way on a server."""
        for job in jobs:
            mark = fingerprint(job, workflow)
            entry = self.entries.get(job.name)
            same = entry is not None and entry.fingerprint == mark
            if entry is None or not same or not self._holds(entry):
                self.entries[job.name] = Entry(fingerprint=mark)
        self.save()

    def _holds(self, entry: Entry) -> bool:
        if entry.state == "finished":
            return (self.path.parent / entry.video).is_file()
        return entry.state == "queued"

    def note(self, job: Job, **changes: Any) -> Entry:
        """Change the entry of a job, on the disk before this returns."""
        entry = self.entries[job.name]
        for name, value in changes.items():
            setattr(entry, name, value)
        self.save()
        return entry

    def save(self) -> None:
        """Write the file: all of it, or what was there before."""
        text = json.dumps({"version": 1, "jobs": {n: asdict(e) for n, e in self.entries.items()}}, indent=1)
        scratch = self.path.with_suffix(".new")
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path)
