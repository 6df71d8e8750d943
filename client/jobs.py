"""Jobs of dub_folder.py: read from a folder or a list, and filled into a workflow."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_errors import JobError
from file_names import safe_name, shortened
from refusals import did_you_mean
from strict_json import parse, read_text

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
KEYS = ("source", "voice", "name", "set")
EXAMPLE = '{"source": "anna.mp4", "voice": "anna.wav"}'
SERVER_NAME = 150  # bytes of a job's name in the server's output folder, where more is put behind it


@dataclass(frozen=True)
class Job:
    """One video to make. settings: "NodeClass.input" -> value, on top of the workflow's. where: its line in a list."""

    name: str
    source: Path
    voice: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def called(self) -> str:
        """How an error names the job."""
        return f"job {self.name!r} ({self.where})" if self.where else f"job {self.name!r}"


def read_jobs(path: Path) -> list[Job]:
    """Return the jobs in a folder (a picture or video and a voice of one name each) or in a JSONL file.

    A line of the file: {"source": "a.png", "voice": "b.wav", "name": "optional", "set": {"NodeClass.input": value}},
    paths relative to it. Raises JobError.
    """
    if _is(path, "dir"):
        jobs = _pairs(path)
    elif _is(path, "file"):
        lines = re.split(r"\r\n|\n|\r", read_text(path))  # splitlines would cut at characters within a text too
        jobs = [_from_line(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        if not jobs:
            raise JobError(f"{path} holds no job; write one on each line, such as {EXAMPLE}")
    else:
        raise JobError(f"there is no {path}; name a folder of jobs or a JSONL file")
    for name, count in Counter(job.name for job in jobs).items():
        if count > 1:
            raise JobError(f"{count} jobs are called {name!r}; give each a name of its own")
    if not jobs:
        raise JobError(f"{path} holds no pair of a picture or video and a voice with the same name")
    return jobs


def _is(path: Path, what: str) -> bool:
    try:
        return path.is_dir() if what == "dir" else path.is_file()
    except OSError as error:  # a path that is too long, or that we may not look at
        raise JobError(f"{str(path)[:200]} cannot be looked at: {error.strerror}") from error


def without_partner(folder: Path) -> list[str]:
    """Return the names of the sources and voices in a folder that belong to no job."""
    sources, voices = _sources_and_voices(folder)
    paired = {file for job in _pairs(folder) for file in (job.source, job.voice)}
    return sorted(path.name for path in [*sources, *voices] if path not in paired)


def _sources_and_voices(folder: Path) -> tuple[list[Path], list[Path]]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise JobError(f"{folder} cannot be read: {error.strerror}") from error
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
    # An accent may have two forms, one of which macOS writes: they look the same, so they are the same name.
    by_looks = {unicodedata.normalize("NFC", stem): voice for stem, voice in voices.items()}
    found = [(path, voices.get(path.stem) or by_looks.get(_looks(path))) for path in sources]
    return [Job(safe_name(path.stem), path, voice) for path, voice in found if voice is not None]


def _looks(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem)


def _from_line(file: Path, number: int, line: str) -> Job:
    where = f"line {number} of {file.name}"
    begins = line.strip()[:2]  # a bracket alone: JSON over several lines
    entry = parse(line, where) if len(begins) > 1 and begins[0] in "{[" else None
    if not isinstance(entry, dict):
        raise JobError(f"{where} is not a job: each line is one, such as {EXAMPLE}")
    for key in entry:
        if key not in KEYS:
            raise JobError(f"{where} has the unknown key {key[:60]!r}{did_you_mean(key, KEYS)}: a job has {_KEYS}")
    source, voice = _file(file, entry, "source", where), _file(file, entry, "voice", where)
    settings, name = entry.get("set", {}), entry.get("name", "")
    if not isinstance(settings, dict):
        raise JobError(f'{where}: "set" is not of the form {{"NodeClass.input": value}}')
    if not isinstance(name, str):
        raise JobError(f'{where}: "name" is not a text')
    name = name or (source.stem if source.stem == voice.stem else f"{source.stem}_{voice.stem}")
    return Job(safe_name(re.sub(r"[^\w.-]+", "_", name)), source, voice, settings, where)


_KEYS = ", ".join(KEYS)


def _file(file: Path, entry: Mapping[str, Any], key: str, where: str) -> Path:
    name = entry.get(key)
    if not isinstance(name, str) or not name:
        raise JobError(f'{where} is not {{"source": …, "voice": …}}: its {key} is no name of a file')
    path = file.parent / name
    if not _is(path, "file"):
        raise JobError(f"{where}: there is no file {path}")
    return path


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
            # ComfyUI would take %…% for something to fill in.
            name = shortened(job.name, SERVER_NAME).replace("%", "_")
            node["inputs"]["filename_prefix"] = f"{prefix}/{name}"
    for name, value in job.settings.items():
        kind, _, key = name.partition(".")
        found = nodes_called(filled, kind)
        if not found or not key:
            known = [_short(node["class_type"]) for node in filled.values()]
            hint = "" if found else did_you_mean(_short(kind), known)
            raise JobError(f"the workflow has no {name}; write it as NodeClass.input, such as {SAMPLER}.seed{hint}")
        for node in found:
            node["inputs"][key] = value
    return filled


def nodes_called(workflow: Workflow, kind: str) -> list[dict[str, Any]]:
    """Return the nodes of a class; InfiniteTalk before its name may be left out."""
    return [node for node in workflow.values() if _short(node["class_type"]) == _short(kind)]


def _short(kind: str) -> str:
    return kind.removeprefix("InfiniteTalk")


def _loader(workflow: Workflow, kind: str, inputs: tuple[str, ...], what: str) -> dict[str, Any]:
    """The one node that loads the file behind one of these inputs of the nodes of a class."""
    links = [node["inputs"].get(name) for node in workflow.values() if node["class_type"] == kind for name in inputs]
    ids = dict.fromkeys(str(link[0]) for link in links if isinstance(link, list) and link)
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
