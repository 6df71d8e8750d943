"""Names of files that are valid, and different from each other, on Windows, macOS and Linux."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator

# Windows takes these for devices, whatever suffix follows.
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in "123456789¹²³"}
NOT_IN_NAMES = r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\ud800-\udfff]'


def same_file_key(name: str) -> str:
    """Return a text that is equal for names that are one file on some systems: by case, or by the form of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def safe_name(name: str) -> str:
    """Return the name as it can be a file's, without suffix, on every system; a usual name is returned as it is."""
    text = re.sub(NOT_IN_NAMES, "_", unicodedata.normalize("NFC", name)).strip(" .")
    if text.partition(".")[0].strip().casefold() in DEVICES:
        text = f"_{text}"
    return text or "_"


def shortened(name: str, size: int) -> str:
    """Return the name, or, if it has more than `size` bytes in UTF-8, its beginning and a hash of the whole."""
    content = name.encode(errors="replace")
    if len(content) <= size:
        return name
    digest = hashlib.sha256(content).hexdigest()[:8]
    return f"{content[: size - 9].decode(errors='ignore').rstrip(' .')}_{digest}"


def numbered(stem: str, suffix: str) -> Iterator[str]:
    """Yield stem.suffix, then "stem (2).suffix" and so on."""
    yield f"{stem}{suffix}"
    for number in range(2, 10_000):
        yield f"{stem} ({number}){suffix}"
