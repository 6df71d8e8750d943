"""The sound of a run's video, encoded in a thread of its own while the first chunk is made."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from ..audio.sound import Sound
from ..video.soundtrack import encode_sound, is_sound
from .store import RunStore

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def encoded_sound(store: RunStore, sound: Sound, check_interrupted: Callable[[], None]) -> Iterator[Callable[[], Path]]:
    """Give a function that returns the file of the encoded sound: the stored one, or one that is being made.

    The function waits for it, calling `check_interrupted`, and raises what its encoding raised. Leaving the block stops
    the encoding: what is not needed then is made by the next execution.
    """
    stored = store.sound()
    if stored is not None and is_sound(stored):
        yield lambda: stored
        return
    left = threading.Event()

    def encode() -> Path:
        return store.put_sound(encode_sound(sound, lambda: _stop_if(left)))

    with ThreadPoolExecutor(1, thread_name_prefix="infinitetalk-sound") as pool:
        encoding = pool.submit(encode)
        try:
            yield lambda: _result(encoding, check_interrupted)
        finally:
            left.set()


class _StoppedError(Exception):
    """The encoding was stopped, since nothing waits for it."""


def _stop_if(left: threading.Event) -> None:
    if left.is_set():
        raise _StoppedError


def _result(encoding: Future[Path], check_interrupted: Callable[[], None]) -> Path:
    while not wait([encoding], timeout=_POLL_SECONDS).done:
        check_interrupted()
    return encoding.result()
