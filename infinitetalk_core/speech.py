"""Speech that is ready to be seen: features of each speaker, the sound to be heard, and where the speakers are."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from .audio.sound import Sound, mix, pad_to, resample
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
    silence are as large as those of speech, so zeros in their place would be heard as something else.
    """
    if len(sounds) != 2:
        raise InputError(f"there must be two speakers, got {len(sounds)}; for one use Speech Encode")
    heard = [sound for sound in sounds if sound is not None]
    if not heard:
        raise InputError("nobody speaks: connect the voice of at least one person")
    # Loudness is levelled before silence is added: silence would change what is measured.
    voices = [prepare_voice(sound, scratch) for sound in heard]
    if timing is Timing.IN_TURN:
        heard, voices = in_turn(heard), in_turn(voices)
    length = max(voice.samples for voice in voices)
    spoken = iter(voices)
    silence = Sound(torch.zeros(1, length), SAMPLE_RATE_HZ)
    tracks = [silence if sound is None else pad_to(next(spoken), length) for sound in sounds]
    return Speech(tuple(encode(track) for track in tracks), mix(heard), areas)


def in_turn(sounds: Sequence[Sound]) -> list[Sound]:
    """Each sound moved behind the one before it, and all of the same length."""
    rate = max(sound.sample_rate_hz for sound in sounds)
    sounds = [resample(sound, rate) for sound in sounds]
    total = sum(sound.samples for sound in sounds)
    moved, start = [], 0
    for sound in sounds:
        after = total - start - sound.samples
        moved.append(Sound(pad(sound.waveform, (start, after)), rate))
        start += sound.samples
    return moved
