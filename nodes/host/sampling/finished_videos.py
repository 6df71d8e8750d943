"""Detects that a finished video was deleted: ComfyUI goes on returning what the node returned before."""

from __future__ import annotations

from pathlib import Path


class FinishedVideos:
    """The videos that nodes of this process have returned."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()
        self._deleted = 0

    def add(self, path: Path) -> None:
        """Note a finished video."""
        self._paths.add(path)

    def deleted(self) -> int:
        """Return how many of them were deleted or moved so far.

        For fingerprint_inputs: with another number ComfyUI runs the nodes again, and those whose video is there take
        it as it is.
        """
        gone = {path for path in self._paths if not path.exists()}
        self._paths -= gone
        self._deleted += len(gone)
        return self._deleted
