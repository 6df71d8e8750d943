"""Converts ComfyUI's IMAGE and VIDEO to frame sources and a finished file to VIDEO; chooses file names."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import InputImpl, io, ui
from torch import Tensor

from ....infinitetalk_core.errors import InputError, disk_error
from ....infinitetalk_core.fingerprint import FileFingerprints
from ....infinitetalk_core.runs.readable_report import SUFFIX as READABLE_SUFFIX
from ....infinitetalk_core.video.source import FrameSource, PictureBatch, VideoFile
from ....infinitetalk_core.video.trim import cut
from .connected_sampler import as_sent
from .file_name import check_prefix
from .foreign import number_of, what_is
from .foreign_pictures import as_images

SUFFIX = ".mp4"
RUNS_FOLDER = "infinitetalk_runs"


def source_of(
    image: Tensor | None, video: Any | None, files: FileFingerprints | None = None, name: str = "video"
) -> FrameSource:
    """Return the frame source of an IMAGE or a VIDEO. files: the cache of file fingerprints; name: of the VIDEO input.

    Raises InputError unless exactly one of them is connected.
    """
    if (image is None) == (video is None):
        both = "both are" if image is not None else "neither is"
        raise InputError(f"connect either an image or a video to the Reference Picker: {both} connected")
    if image is not None:
        return PictureBatch(image[..., :3])
    assert video is not None
    if not isinstance(video, InputImpl.VideoFromFile):
        # Made by another node; its frames are in memory already.
        parts = video.get_components()
        rate = parts.frame_rate if isinstance(parts.frame_rate, Fraction) else number_of(parts.frame_rate)
        if rate is None:
            raise InputError(
                f"{name} has {what_is(parts.frame_rate)} as its frame rate; save it as a file and load that"
            )
        return PictureBatch(as_images(parts.images, name), rate)
    source = VideoFile(video.get_stream_source(), files, throw_exception_if_processing_interrupted)
    # Newer ComfyUI can trim a VIDEO without changing its file.
    start, seconds = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()
    return cut(source, start, seconds) if start or seconds else source


def output_folder() -> Path:
    """Return ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory()).resolve()


def check_name(prefix: str) -> None:
    """Raise InputError unless `prefix` names a visible file inside ComfyUI's output folder."""
    check_prefix(prefix, output_folder(), RUNS_FOLDER)


def output_path(prefix: str, width: int, height: int) -> Path:
    """Return an unused path in ComfyUI's output folder. Raises InputError for an invalid prefix, OSError for
    a folder that cannot be made."""
    check_name(prefix)
    try:
        folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, str(output_folder()), width, height)
    except OSError as error:
        raise disk_error(output_folder() / prefix, error) from error
    path = Path(folder) / f"{name}_{counter:05}_{SUFFIX}"
    while any(path.with_suffix(suffix).exists() for suffix in (SUFFIX, ".json", READABLE_SUFFIX)):
        counter += 1
        path = Path(folder) / f"{name}_{counter:05}_{SUFFIX}"
    return path


def workflow_metadata(hidden: Any) -> dict[str, str]:
    """Return the prompt and the workflow as metadata of the file; none with --disable-metadata.

    Leaves out ComfyUI's `is_changed`, which depends on files and times, so that the same job gives the same file, and
    what was added to the prompt for the Reference Picker.
    """
    if args.disable_metadata:
        return {}
    prompt = hidden.prompt
    if prompt is not None:
        prompt = {i: {k: v for k, v in node.items() if k != "is_changed"} for i, node in as_sent(prompt).items()}
    found = {"prompt": prompt, **(hidden.extra_pnginfo or {})}
    return {key: json.dumps(value) for key, value in found.items() if value is not None}


def finished_video(path: Path, report: str, words: str) -> io.NodeOutput:
    """Return the node output: the file as VIDEO with a preview on the node, and the report of the run.

    words: what the node says about it.
    """
    return io.NodeOutput(InputImpl.VideoFromFile(str(path)), report, ui=player(path, words))


def player(path: Path, words: str) -> dict[str, Any]:
    """Return the UI output that plays a video of the output folder on the node. words: what the node says about it."""
    subfolder = path.parent.relative_to(output_folder()).as_posix()
    file = ui.SavedResult(path.name, "" if subfolder == "." else subfolder, io.FolderType.output)
    return {**ui.PreviewVideo([file]).as_dict(), "text": (words,)}
