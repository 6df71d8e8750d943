"""The check of the name that the user chooses for the video, `filename_prefix`."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PureWindowsPath

from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.number_lists import shortened

EXAMPLE = "video/InfiniteTalk"
LONGEST_NAME = 200  # bytes; file systems allow 255, and number, state and suffix are appended
MOST_FOLDERS = 32
# What ComfyUI's server fills in (folder_paths.get_save_image_path).
SERVER_TOKENS = ("width", "height", "year", "month", "day", "hour", "minute", "second")


def check_prefix(prefix: str, folder: Path, runs_folder: str) -> None:
    """Raise InputError unless `prefix` names a visible file in `folder` and not in its subfolder `runs_folder`.

    folder: ComfyUI's output folder.
    """
    shown = repr(shortened(prefix))
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in prefix):
        raise InputError(f"filename_prefix {shown} holds a character that no file name has; write it again")
    _check_tokens(prefix)
    path = Path(os.path.abspath(folder / prefix))
    elsewhere = os.name != "nt" and PureWindowsPath(prefix).drive
    if elsewhere or prefix.startswith("~") or not path.is_relative_to(folder):
        raise InputError(
            f"filename_prefix {shown} leads out of ComfyUI's output folder; write a name inside it, such as {EXAMPLE}"
        )
    parts = path.relative_to(folder).parts
    if not parts or not parts[-1].strip() or parts[-1].startswith("."):
        raise InputError(
            f"filename_prefix {shown} has no name for the file, which would be hidden; write one, such as {EXAMPLE}"
        )
    if len(parts) > MOST_FOLDERS:
        raise InputError(
            f"filename_prefix names {len(parts) - 1} folders in each other, and {MOST_FOLDERS} are the most; write a "
            f"shorter one, such as {EXAMPLE}"
        )
    for part in parts:
        length = len(part.encode())
        if length > LONGEST_NAME:
            raise InputError(
                f"the name {shortened(part)!r} in filename_prefix is {length} bytes long, too long for a file; write "
                f"at most {LONGEST_NAME}, such as {EXAMPLE}"
            )
    if len(parts) > 1 and parts[0].casefold() == runs_folder:
        raise InputError(
            f"filename_prefix {shown} lies in {runs_folder}, where unfinished jobs are kept and removed; write "
            f"another folder, such as {EXAMPLE}"
        )


def _check_tokens(prefix: str) -> None:
    """Raise InputError for what ComfyUI's page fills in before it sends a job, and the server does not."""
    for match in re.finditer(r"%([^%]+)%", prefix):
        token = match[1]
        if token.startswith("date") or re.fullmatch(r"[^.]+\.[^.]+", token):
            raise InputError(
                f"filename_prefix has {shortened(match[0])!r}, which nothing has filled in: ComfyUI's page does that "
                "for dates such as %date:yyyy-MM-dd% and for widgets of nodes in the workflow, and the API does not; "
                f"write the text itself, or {', '.join(f'%{token}%' for token in SERVER_TOKENS)}"
            )
