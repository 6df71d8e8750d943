"""Loads files by path, for jobs without a browser; only from ComfyUI's own folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import InputImpl

from ....infinitetalk_core.audio.reading import read_sound
from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.media_file import special_kind
from ....infinitetalk_core.video.picture import read_picture
from ....infinitetalk_core.video.source import VideoFile
from ..messages import write_on_node
from ..model.model_files import file_stamp, temp_folder

EXAMPLE = "clips/talk.mp4, or out.mp4 [output]"


def file_in_comfyui(text: str) -> Path:
    """Return the file that `text` names, relative to ComfyUI's input folder, or to its output or temp folder where
    [output] or [temp] follows the name. An absolute path must lie in that folder.

    Anybody who can reach the server can send a name, so nothing outside is opened, also not through `..` or links.
    Raises InputError for an empty, invalid, outside or missing path.
    """
    text = text.strip()
    folders = {
        "[input]": folder_paths.get_input_directory(),
        "[output]": folder_paths.get_output_directory(),
        "[temp]": folder_paths.get_temp_directory(),
    }
    mark = next((mark for mark in folders if text.endswith(mark)), None)
    name = text.removesuffix(mark).strip() if mark else text
    mark = mark or "[input]"
    if not name:
        raise InputError(f"the path is empty: write a file in ComfyUI's input folder, such as {EXAMPLE}")
    try:
        folder = Path(folders[mark]).resolve()
        path = (folder / name).resolve()
        kind = special_kind(path.stat().st_mode) if path.exists() else "missing"
    except (OSError, ValueError, RuntimeError) as error:
        what = getattr(error, "strerror", None) or error
        raise InputError(f"{text[:80]!r} is no path ({what}): write one such as {EXAMPLE}") from error
    if not path.is_relative_to(folder):
        raise InputError(
            f"{text!r} lies outside of ComfyUI's {mark[1:-1]} folder, where nothing is read: copy the file into "
            "the input folder, or add [output] or [temp] behind the name if it lies there"
        )
    if kind is not None:
        what = "does not exist" if kind == "missing" else f"is {kind}"
        raise InputError(f"{name!r} {what} in ComfyUI's {mark[1:-1]} folder: write a file there, such as {EXAMPLE}")
    return path


def path_problem(text: str | None) -> str | bool:
    """Return an error message for a path, or True if it is valid or connected by a link (None). For validate_inputs."""
    if text is None:
        return True
    try:
        file_in_comfyui(text)
    except InputError as error:
        return str(error)
    return True


def path_stamp(text: str) -> str:
    """Return a string that changes when the file is replaced on disk, so that it is loaded again."""
    try:
        return file_stamp(file_in_comfyui(text))
    except (InputError, OSError):
        return "missing"


def load_source(text: str) -> tuple[torch.Tensor | None, Any | None]:
    """Return (IMAGE, None) for a picture file, (None, VIDEO) for a video, which is opened but not read.

    Raises InputError for a path or a file that cannot be used.
    """
    path = file_in_comfyui(text)
    picture = read_picture(path)
    if picture is not None:
        return picture, None
    # Raises now if it is no readable video.
    with VideoFile(path, check_interrupted=throw_exception_if_processing_interrupted) as video:
        if video.notes:
            write_on_node(" ".join(f"{note}." for note in video.notes))
    return None, InputImpl.VideoFromFile(str(path))


def load_voice(text: str) -> dict[str, Any]:
    """Return the AUDIO of a sound or video file; a long one is kept in ComfyUI's temp folder, not in memory."""
    sound = read_sound(file_in_comfyui(text), temp_folder(), throw_exception_if_processing_interrupted)
    return {"waveform": sound.waveform[None], "sample_rate": sound.sample_rate_hz}
