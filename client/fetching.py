"""Fetch what a job made: its video, and the manifest of its run as its report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from client_errors import RefusedError, one_line
from comfy_client import ComfyClient, Content
from jobs import Job
from prompt_outcome import PromptOutcome
from results import ResultFolder

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v")
NO_REPORT = "there is no report"


async def fetch(client: ComfyClient, job: Job, outcome: PromptOutcome, folder: ResultFolder) -> dict[str, Any]:
    """Bring video and report into the folder; return the changes of the job's record.

    The server chooses what is in the files, not where they go. Raises the client's errors, and OSError for the disk.
    """
    videos = [file for file in outcome.files() if file["filename"].lower().endswith(VIDEO_SUFFIXES)]
    if not videos:
        return {"state": "failed", "error": "the workflow ended without a video"}
    file = videos[-1]
    with folder.part() as part:
        content = await client.save(file, part)
        video, video_kept = folder.place(part, content, job, Path(file["filename"]).suffix)
    result = {"state": "finished", "video": video, "report": "", "error": ""}
    try:
        manifest, warnings = await _manifest(client, file)
    except (RefusedError, ValueError, RecursionError):
        return {**result, "warnings": [text for text in (video_kept, NO_REPORT) if text]}
    with folder.part() as part:
        part.write_bytes(manifest)
        content = Content(len(manifest), hashlib.sha256(manifest).hexdigest())
        report, report_kept = folder.place(part, content, job, ".json")
    found = [text for text in (video_kept, report_kept, *warnings) if text]
    return {**result, "report": report, "warnings": list(dict.fromkeys(found))}


async def _manifest(client: ComfyClient, video: dict[str, str]) -> tuple[bytes, list[str]]:
    """Return the manifest of a video's run and the warnings in it. Raises ValueError if it is none."""
    text = await client.view({**video, "filename": f"{Path(video['filename']).stem}.json"})
    found = _object(text)
    if run := found.get("run"):
        if not isinstance(run, str):
            raise ValueError("no name of a run")
        text = await client.view({"filename": "run.json", "subfolder": run, "type": "output"})
        found = _object(text)
    entries = [entry for entry in _list(found.get("executions")) if isinstance(entry, dict)]
    return text, [one_line(text) for entry in entries for text in _list(entry.get("warnings")) if isinstance(text, str)]


def _object(text: bytes) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []
