"""Speech that is ready to be seen: features of each speaker, the sound to be heard, and where the speakers are."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .audio.sound import Sound, lay_out, mix, place
from .audio.voice import SAMPLE_RATE_HZ, prepare_voice
from .chunks.speaker_masks import Area
from .errors import InputError
from .scratch import StoredRows

# Speech features (F, layers, channels) at 25 fps; those of hours are read from a file, some frames at a time
Voice = Tensor | StoredRows
# A voice from `prepare_voice` → its features
Encode = Callable[[Sound], Voice]


class Timing(enum.Enum):
    """How two tracks follow each other."""

    TOGETHER = "together"  # the reference's 'para'
    IN_TURN = "one after the other"  # the reference's 'add'


@dataclass(frozen=True)
class Speech:
    """What a video says.

    voices: (F, layers, channels) of each speaker, at 25 fps, of equal length; sound: what the file will
    sound like, its length is the video's; areas: where the speakers are, None for their halves of the picture.
    """

    voices: tuple[Voice, ...]
    sound: Sound
    areas: tuple[Area, ...] | None = None

    @property
    def frames(self) -> int:
        """Frames of the video: exactly round(seconds · 25), at least 1."""
        return self.sound.frames


def encode_speech(encode: Encode, sound: Sound, scratch: Path | None = None) -> Speech:
    """One voice. scratch: a folder for what of a long one does not stay in memory."""
    return Speech((encode(prepare_voice(sound, scratch)),), sound)


def encode_speakers(
    encode: Encode,
    sounds: Sequence[Sound | None],
    timing: Timing,
    areas: tuple[Area, ...] | None = None,
    scratch: Path | None = None,
) -> Speech:
    """Two people, each with a sound, or None for one who only listens.

    Silence is put between and after the tracks before they are encoded, as in the reference: the features of
    silence are as large as those of speech, so zeros in their place would be heard as something else. scratch: a folder
    for what of long sounds does not stay in memory.
    """
    if len(sounds) != 2:
        raise InputError(f"there must be two speakers, got {len(sounds)}; for one use Speech Encode")
    heard = [sound for sound in sounds if sound is not None]
    if not heard:
        raise InputError("nobody speaks: connect the voice of at least one person")
    # Loudness is levelled before silence is added: silence would change what is measured.
    voices = [prepare_voice(sound, scratch) for sound in heard]
    in_turn = timing is Timing.IN_TURN
    starts, length = lay_out(voices, in_turn)
    spoken = iter([place(voice, start, length, scratch) for voice, start in zip(voices, starts, strict=True)])
    silence = Sound(torch.zeros(1, 1).expand(1, length), SAMPLE_RATE_HZ)  # hours of it are one number
    tracks = [silence if sound is None else next(spoken) for sound in sounds]
    return Speech(tuple(encode(track) for track in tracks), mix(heard, in_turn=in_turn, scratch=scratch), areas)
