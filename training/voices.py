"""Make synthetic speech with exact phoneme times from sentences spoken by espeak-ng.

The library comes with the PyPI package `espeakng_loader`, which only training needs. It keeps state in global variables
that cannot be reset (the voice's phase, its flutter, random numbers), so a sentence would sound different after every
other sentence. Here each utterance is spoken by a freshly loaded copy that is unloaded afterwards: the same text and
voice give the same samples every time, in any order.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from infinitetalk_core.audio.sound import Sound, resample
from infinitetalk_core.audio.voice import SAMPLE_RATE_HZ
from infinitetalk_core.errors import InputError
from infinitetalk_core.rate import FRAMES_PER_SECOND

from .sentences import split_words, training_sentence, unseen_sentence

PAUSE = ""  # the symbol of silence, as espeak-ng gives it
FRAME_SAMPLES = SAMPLE_RATE_HZ // FRAMES_PER_SECOND
# A millisecond beyond whole frames. With it Sound.frames, frames_of and the encoder's 50 features per second agree:
# frame f is feature 2 f, exactly. Without it, 29 · 640 samples would be 28 frames (see audio/wav2vec.py).
SPARE_SAMPLES = 16

TRAINING_ACCENTS = ("en", "en-us", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
UNSEEN_ACCENTS = ("en-gb-scotland", "en-us-nyc")
TRAINING_VARIANTS = split_words(
    "m1, m2, m4, m5, m6, m7, f1, f2, f4, Alex, Alicia, Andrea, Andy, Gene, Hugo, Lee, Mario, Michael, Mike, Reed, "
    "adam, anika, antonio, aunty, benjamin, boris, david, ed, edward, gustave, john, linda, marcelo, max, michel, "
    "miguel, norbert, paul, pedro, robert, quincy, steph, grandma, grandpa, klatt, klatt3, klatt4"
)
UNSEEN_VARIANTS = split_words(
    "m3, m8, f3, f5, Annie, Jacky, belinda, caleb, ian, klatt2, sandro, shelby, steph2, travis, victor"
)


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng.

    name: accent and variant, like "en-us+f3". rate: words per minute, 80 … 450. pitch: 0 low … 99 high. pitch_range: 0
    monotone … 99 lively.
    """

    name: str
    rate: int = 165
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True)
class TimedPhoneme:
    """A phoneme (IPA, "" for silence) and its start; it lasts until the next one."""

    seconds: float
    symbol: str


@dataclass(frozen=True)
class Utterance:
    """Speech, 16 kHz mono, a whole number of frames (and a millisecond) long, with its phonemes in order."""

    sound: Sound
    phonemes: tuple[TimedPhoneme, ...]


def training_voice(seed: int) -> Voice:
    """Draw a voice for training: accent, variant, rate and pitch."""
    return _draw_voice(np.random.default_rng((11, seed)), TRAINING_ACCENTS, TRAINING_VARIANTS)


def unseen_voice(seed: int) -> Voice:
    """Draw a voice for evaluation; `training_voice` never uses its accent or its variant."""
    return _draw_voice(np.random.default_rng((12, seed)), UNSEEN_ACCENTS, UNSEEN_VARIANTS)


def say(text: str, voice: Voice) -> Utterance:
    """Return `text` spoken by `voice`. The same arguments give the same samples.

    Raises InputError if the library is missing, the voice is unknown or the text has nothing to pronounce.
    """
    with open_synthesizer() as synthesizer:
        return on_whole_frames(synthesizer.say(text, voice))


def say_long(seed: int, seconds: float, voice: Voice, *, unseen: bool = False) -> Utterance:
    """Return random sentences of at least `seconds` in all, with pauses of 0.2 to 0.6 s before and after each."""
    rng = np.random.default_rng((13, seed, int(unseen)))
    sentence = unseen_sentence if unseen else training_sentence
    parts = [silence(float(rng.uniform(0.2, 0.6)))]
    with_pauses = parts[0].sound.seconds
    while with_pauses < seconds or len(parts) < 3:
        with open_synthesizer() as synthesizer:
            spoken = synthesizer.say(sentence(int(rng.integers(1 << 40))), voice)
        parts += [spoken, silence(float(rng.uniform(0.2, 0.6)))]
        with_pauses += sum(part.sound.seconds for part in parts[-2:])
    return on_whole_frames(join(parts))


def speak(seed: int, seconds_at_least: float, unseen: bool = False) -> Utterance:
    """Return at least `seconds_at_least` of speech, with voice and sentences drawn by `seed`."""
    voice = unseen_voice(seed) if unseen else training_voice(seed)
    return say_long(seed, seconds_at_least, voice, unseen=unseen)


def silence(seconds: float) -> Utterance:
    """Return an utterance of silence."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    return Utterance(Sound(torch.zeros(1, samples), SAMPLE_RATE_HZ), (TimedPhoneme(0.0, PAUSE),))


def join(parts: Sequence[Utterance]) -> Utterance:
    """Concatenate utterances."""
    phonemes: list[TimedPhoneme] = []
    begin = 0
    for part in parts:
        phonemes += [replace(phoneme, seconds=phoneme.seconds + begin / SAMPLE_RATE_HZ) for phoneme in part.phonemes]
        begin += part.sound.samples
    sound = Sound(torch.cat([part.sound.waveform for part in parts], dim=1), SAMPLE_RATE_HZ)
    return Utterance(sound, tuple(phonemes))


def on_whole_frames(utterance: Utterance) -> Utterance:
    """Pad the utterance with silence to whole frames and SPARE_SAMPLES."""
    samples = utterance.sound.samples
    wanted = -(-(samples - SPARE_SAMPLES) // FRAME_SAMPLES) * FRAME_SAMPLES + SPARE_SAMPLES
    waveform = pad(utterance.sound.waveform, (0, wanted - samples))
    return replace(utterance, sound=Sound(waveform, SAMPLE_RATE_HZ))


def _draw_voice(rng: np.random.Generator, accents: Sequence[str], variants: Sequence[str]) -> Voice:
    name = f"{accents[int(rng.integers(len(accents)))]}+{variants[int(rng.integers(len(variants)))]}"
    rate, pitch, pitch_range = (int(rng.integers(*limits)) for limits in ((125, 206), (20, 81), (20, 81)))
    return Voice(name, rate, pitch, pitch_range)


class _Event(ctypes.Structure):
    """An event of espeak-ng during synthesis (speak_lib.h, espeak_EVENT)."""

    _fields_ = [
        ("kind", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("text", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_END_OF_EVENTS, _PHONEME_EVENT = 0, 7
_RETRIEVE = 1  # give the samples to the callback, play nothing
_OPTIONS = 0x0001 | 0x0002 | 0x8000  # phoneme events; in IPA; report errors instead of ending the process
_BUFFER_MILLISECONDS = 500
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # parameter numbers of the library
_RANDOM_SEED = 1


class Synthesizer:
    """One loaded copy of espeak-ng, for one utterance; made by `open_synthesizer`.

    The library has one callback for the whole process, so only one Synthesizer can be open at a time. While it
    speaks, a thread of the library calls back; `say` returns after the last call.
    """

    def __init__(self, library: ctypes.CDLL, data: str) -> None:
        self._library = library
        self._samples: list[NDArray[np.int16]] = []
        self._events: list[tuple[int, str]] = []
        self._rate = library.espeak_Initialize(_RETRIEVE, _BUFFER_MILLISECONDS, data.encode(), _OPTIONS)
        if self._rate <= 0:
            raise InputError(f"espeak-ng cannot start with its data in {data}; install espeakng_loader again")
        self._callback = _Callback(self._receive)  # a reference must be kept, since the library holds only its address
        library.espeak_SetSynthCallback(self._callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(_RANDOM_SEED))

    def say(self, text: str, voice: Voice) -> Utterance:
        """Return `text` as spoken, without added silence, with the times of its phonemes. See `say` for errors."""
        library = self._library
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {voice.name!r}; take one like 'en-us+f3'")
        for number, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            library.espeak_SetParameter(number, value, 0)
        encoded = text.encode() + b"\0"
        zero = ctypes.c_uint(0)
        size, flags = ctypes.c_size_t(len(encoded)), ctypes.c_uint(_UTF8)
        library.espeak_Synth(ctypes.c_char_p(encoded), size, zero, 1, zero, flags, None, None)
        library.espeak_Synchronize()
        if not any(symbol != PAUSE for _, symbol in self._events):
            raise InputError(f"espeak-ng says nothing for {text!r}; write something with words")
        samples = torch.from_numpy(np.concatenate(self._samples).astype(np.float32) / 32768.0)
        phonemes = (TimedPhoneme(at / self._rate, symbol) for at, symbol in self._events)
        return Utterance(resample(Sound(samples[None], self._rate), SAMPLE_RATE_HZ), tuple(phonemes))

    def _receive(self, wave: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        """Store the samples and phoneme events of one callback."""
        if wave and count > 0:
            self._samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while (event := events[index]).kind != _END_OF_EVENTS:
            if event.kind == _PHONEME_EVENT:
                self._events.append((event.sample, event.text.decode(errors="ignore")))
            index += 1
        return 0


@contextmanager
def open_synthesizer() -> Iterator[Synthesizer]:
    """Load a fresh copy of espeak-ng and unload it at the end, so that no state carries over between utterances."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise InputError(
            "synthetic speech needs the package espeakng_loader; run: pip install espeakng_loader"
        ) from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        yield Synthesizer(library, espeakng_loader.get_data_path())
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)
