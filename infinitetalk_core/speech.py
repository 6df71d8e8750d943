"""Speech that is ready to be seen: features of each speaker, the sound to be heard, and where the speakers are."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .audio.sound import Sound, lay_out, mix, place
from .audio.voice import SAMPLE_RATE_HZ, prepare_voice
from .chunks.speaker_masks import Area
from .disk_buffer import DiskTensor
from .errors import InputError
from .fingerprint import describe_fields, excluded, key_of, tensor_fingerprint

# Speech features (F, layers, channels) at 25 fps; those of hours are read from a file, some frames at a time
SpeechFeatures = Tensor | DiskTensor
ROWS_AT_ONCE = 256  # of features that are hashed: of wav2vec base 9 MB


@dataclass(frozen=True)
class EncodedVoice:
    """Speech features, and a key of all that they were made of and with: equal keys stand for the same features."""

    features: SpeechFeatures
    key: str


# A voice from `prepare_voice` → its features, with their key where somebody is to find them again by it
Encode = Callable[[Sound], SpeechFeatures | EncodedVoice]


class Timing(enum.Enum):
    """How two tracks follow each other."""

    TOGETHER = "together"  # the reference's 'para'
    IN_TURN = "one after the other"  # the reference's 'add'


@dataclass(frozen=True)
class Speech:
    """What a video says.

    voices: (F, layers, channels) of each speaker, at 25 fps, of equal length; sound: what the file will
    sound like, its length is the video's; areas: where the speakers are, None for their halves of the picture;
    encoded: the key of each voice (`EncodedVoice`), or nothing, then they are known by their features.
    """

    voices: tuple[SpeechFeatures, ...] = field(
        metadata=excluded("the last bits may differ from one time to the next; `encoded` says what they are")
    )
    sound: Sound
    areas: tuple[Area, ...] | None = None
    encoded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.encoded) not in (0, len(self.voices)):
            raise ValueError(f"{len(self.voices)} voices need as many keys or none, got {len(self.encoded)}")

    def fingerprint(self) -> Any:
        """Of the fields that count (fingerprint.py). Without keys it reads all features."""
        if self.encoded:
            return describe_fields(self)
        return describe_fields(replace(self, encoded=tuple(_features_fingerprint(voice) for voice in self.voices)))

    @property
    def frames(self) -> int:
        """Frames of the video: exactly round(seconds · 25), at least 1."""
        return self.sound.frames


def encode_speech(encode: Encode, sound: Sound, scratch: Path | None = None) -> Speech:
    """One voice. scratch: a folder for what of a long one does not stay in memory."""
    return _speech([encode(prepare_voice(sound, scratch))], sound)


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
    encoded = [encode(track) for track in tracks]
    return _speech(encoded, mix(heard, in_turn=in_turn, scratch=scratch), areas)


def _speech(
    encoded: Sequence[SpeechFeatures | EncodedVoice], sound: Sound, areas: tuple[Area, ...] | None = None
) -> Speech:
    voices = tuple(voice.features if isinstance(voice, EncodedVoice) else voice for voice in encoded)
    keys = tuple(voice.key for voice in encoded if isinstance(voice, EncodedVoice))
    return Speech(voices, sound, areas, keys if len(keys) == len(voices) else ())


def _features_fingerprint(voice: SpeechFeatures) -> str:
    """The same for equal features in memory and in a file."""
    parts = torch.arange(len(voice)).split(ROWS_AT_ONCE)
    return key_of([list(voice.shape), *(tensor_fingerprint(voice[rows]) for rows in parts)])
