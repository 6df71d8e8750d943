"""Detects that the file of a loaded model was changed on disk: ComfyUI goes on using what it loaded."""

from __future__ import annotations

import contextlib
import time
import weakref
from pathlib import Path
from typing import Any

from ....infinitetalk_core.errors import RunError
from ....infinitetalk_core.model_cache import FileStamp

Files = dict[Path, tuple[FileStamp, str]]  # stamp and fingerprint by path
CHANGED = (
    "{} was changed on the disk after ComfyUI had loaded it, and ComfyUI goes on with what it loaded: free the memory "
    "(in the menu: unload models and clear the cache; by API: POST /free with "
    '{{"unload_models": true, "free_memory": true}}) or restart ComfyUI, and run again'
)


class LoadedFiles:
    """Records which files the live models were loaded from.

    ComfyUI goes on using a model whose file was replaced on disk; the fingerprint of the file would then not be that of
    the model in memory. An object is recorded at the first `check`. A file that was changed between its loading and
    that check is detected if it was changed after the prompt began.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, Files] = weakref.WeakKeyDictionary()
        self._began_ns: int | None = None

    def begin(self) -> None:
        """Note that a prompt begins now; none of its nodes has loaded anything yet."""
        self._began_ns = time.time_ns()

    def check(self, live: Any, files: Files) -> None:
        """Record that `live` was loaded from `files`. Objects without weak references or a hash are not checked.

        Raises RunError for a file whose content was different when the object was loaded.
        """
        try:
            known = self._known.setdefault(live, {})
        except TypeError:
            return
        for path, (stamp, fingerprint) in files.items():
            if path not in known:
                changed = self._began_ns is not None and stamp.changed_ns > self._began_ns
                known[path] = (stamp, "another one" if changed else fingerprint)
            if known[path][1] != fingerprint:
                raise RunError(CHANGED.format(path.name))
            known[path] = (stamp, fingerprint)

    def changed(self) -> list[str]:
        """Return the files of live models whose stamps have changed.

        For fingerprint_inputs: without it ComfyUI's output cache would return the old video without running any node.
        """
        found = set()
        for files in list(self._known.values()):
            for path, (stamp, _) in files.items():
                now = None
                with contextlib.suppress(OSError):
                    now = FileStamp.of(path)
                if now != stamp:
                    found.add(f"{path}: {now}")
        return sorted(found)
