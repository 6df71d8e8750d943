"""Encoded speech: the features of each speaker, the sound of the video, and the speakers' areas in the picture."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .audio.sound import Sound, lay_out, mix, pad_to
from .audio.voice import SAMPLE_RATE_HZ, prepare_voice
from .disk_buffer import DiskTensor
from .errors import InputError
from .fingerprint import describe_fields, excluded, key_of, tensor_fingerprint
from .speakers import MOST_SPEAKERS, Area

# Speech features (F, layers, channels) at 25 fps; long ones are read from a file, some frames at a time
SpeechFeatures = Tensor | DiskTensor
ROWS_AT_ONCE = 256  # rows hashed at once: 9 MB for wav2vec base


@dataclass(frozen=True)
class EncodedVoice:
    """Speech features with a key of everything they were computed from and with: equal keys mean equal features."""

    features: SpeechFeatures
    key: str


# A voice from `prepare_voice` -> its features, with their key if they are to be cached
Encode = Callable[[Sound], SpeechFeatures | EncodedVoice]


class Timing(enum.Enum):
    """Order in time of two speakers' tracks."""

    TOGETHER = "together"  # the reference's 'para'
    IN_TURN = "one after the other"  # the reference's 'add'


@dataclass(frozen=True)
class Speech:
    """The speech of a video.

    voices: features (F, layers, channels) of each speaker at 25 fps, of equal length; sound: the video's sound, whose
    length is the video's; areas: of the speakers in the picture, None for its left and right halves; voice_keys: the
    key of each voice (`EncodedVoice`), or empty, then the fingerprint uses the features themselves; tracks: the sound
    of each of several voices alone, from the beginning of the video on, or empty.
    """

    voices: tuple[SpeechFeatures, ...] = field(
        metadata=excluded("the last bits may differ from one time to the next; `voice_keys` says what they are")
    )
    sound: Sound
    areas: tuple[Area, ...] | None = None
    voice_keys: tuple[str, ...] = ()
    tracks: tuple[Sound, ...] = field(
        default=(), metadata=excluded("what the voices were encoded from, which they and their keys say")
    )

    def __post_init__(self) -> None:
        if len(self.voice_keys) not in (0, len(self.voices)):
            raise ValueError(f"{len(self.voices)} voices need as many keys or none, got {len(self.voice_keys)}")

    def fingerprint(self) -> Any:
        """Describe the fields that count (fingerprint.py). Without keys this reads all features."""
        if self.voice_keys:
            return describe_fields(self)
        return describe_fields(replace(self, voice_keys=tuple(_features_fingerprint(voice) for voice in self.voices)))

    @property
    def frames(self) -> int:
        """Number of video frames: exactly round(seconds · 25), at least 1."""
        return self.sound.frames


def encode_speech(encode: Encode, sound: Sound, scratch: Path | None = None) -> Speech:
    """Encode the speech of one speaker. scratch: a folder for long results that do not stay in memory."""
    return _speech([encode(prepare_voice(sound, scratch))], sound)


def encode_speakers(
    encode: Encode,
    sounds: Sequence[Sound | None],
    timing: Timing,
    areas: tuple[Area, ...] | None = None,
    scratch: Path | None = None,
) -> Speech:
    """Encode the speech of two people, each with a sound, or None for a silent one.

    Tracks are padded with silence before they are encoded, as in the reference: the features of silence are as large
    as those of speech, so zero features would mean another sound. scratch: a folder for long results that do not stay
    in memory. Raises InputError unless there are two people and at least one sound.
    """
    if len(sounds) != MOST_SPEAKERS:
        raise InputError(f"there must be two speakers, got {len(sounds)}; for one use Speech Encode")
    given = [sound for sound in sounds if sound is not None]
    if not given:
        raise InputError("nobody speaks: connect the voice of at least one person")
    # Loudness is normalized before silence is added: silence would change the measured loudness.
    voices = [prepare_voice(sound, scratch) for sound in given]
    in_turn = timing is Timing.IN_TURN
    starts, length = lay_out(voices, in_turn)
    spoken = iter([pad_to(voice, start, length, scratch) for voice, start in zip(voices, starts, strict=True)])
    # Expanded from one number, so that hours of silence take no memory.
    silence = Sound(torch.zeros(1, 1).expand(1, length), SAMPLE_RATE_HZ)
    tracks = [silence if sound is None else next(spoken) for sound in sounds]
    encoded = [encode(track) for track in tracks]
    return replace(_speech(encoded, mix(given, in_turn=in_turn, scratch=scratch), areas), tracks=tuple(tracks))


def _speech(
    encoded: Sequence[SpeechFeatures | EncodedVoice], sound: Sound, areas: tuple[Area, ...] | None = None
) -> Speech:
    voices = tuple(voice.features if isinstance(voice, EncodedVoice) else voice for voice in encoded)
    keys = tuple(voice.key for voice in encoded if isinstance(voice, EncodedVoice))
    return Speech(voices, sound, areas, keys if len(keys) == len(voices) else ())


def _features_fingerprint(voice: SpeechFeatures) -> str:
    """Hash features (F, layers, channels); equal for equal features in memory and in a file."""
    parts = torch.arange(len(voice)).split(ROWS_AT_ONCE)
    return key_of([list(voice.shape), *(tensor_fingerprint(voice[rows]) for rows in parts)])
