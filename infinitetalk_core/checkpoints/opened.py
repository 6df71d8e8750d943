"""Open a weights file, whatever has its name: a folder, a pipe, a disk that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError, RunError
from ..model_cache import FileStamp

SHOWN = 80  # letters of a file's own text in a message


@contextmanager
def opened(path: Path, buffering: int = 0) -> Iterator[BinaryIO]:
    """Open the file at `path` for reading.

    Raises InputError if it is missing or no file (a pipe would never answer), RunError if the disk fails.
    """
    if not path.is_file():
        if path.exists():
            raise InputError(f"{path.name} in {path.parent} is not a file; choose another one")
        raise InputError(f"there is no file {path.name} in {path.parent}; choose another one")
    try:
        with open(path, "rb", buffering=buffering) as file:
            yield file
    except OSError as error:
        raise RunError(
            f"{path.name} could not be read ({error.strerror}); check its permissions and the disk, and run again"
        ) from error


def stamp_of(path: Path) -> FileStamp:
    """Return the stamp of a file or folder. Raises InputError if there is none."""
    try:
        return FileStamp.of(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, before Python 3.13
        raise InputError(f"there is no file {path.name} in {path.parent}; choose another one") from error


def shown(text: object) -> str:
    """Return a text from a file as it can be shown in a message: short, in one line."""
    whole = str(text)
    kept = whole[:SHOWN].split(". ")[0]
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in kept)
    return printable if len(kept) == len(whole) else f"{printable}…"
