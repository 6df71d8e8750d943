"""A recorded speaker, where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from infinitetalk_core.audio.reading import read_sound
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks import face_points as faces
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.source import FrameSource, open_source

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"


def recorded_speaker() -> tuple[FrameSource, Sound]:
    """Return the video of a recorded speaker and their sound; skip the test where there is none, or no dlib."""
    try:
        faces.load_dlib()
    except InputError as reason:
        pytest.skip(str(reason))
    if not (MEDIA / "source_video.mp4").exists():
        pytest.skip("no real video here")
    return open_source(MEDIA / "source_video.mp4"), read_sound(MEDIA / "source_video.mp4")
