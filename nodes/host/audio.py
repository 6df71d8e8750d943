"""The audio encoder as a model that ComfyUI loads and frees, and ComfyUI's AUDIO as sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils

from ...infinitetalk_core.audio.encoder_files import load_speech_encoder
from ...infinitetalk_core.audio.sound import Sound, check_sound
from ...infinitetalk_core.errors import InputError
from ...infinitetalk_core.fingerprint import describe, key_of
from ...infinitetalk_core.runs.feature_cache import CachedFeatures, FeatureCache
from ...infinitetalk_core.speech import EncodedVoice, Speech, SpeechFeatures
from .environment import versions
from .files import temp_folder
from .patchers import Patcher
from .shared_models import SharedModels, fingerprint_of
from .video import RUNS_FOLDER, output_folder

PROGRESS_STEPS = 100
KEPT_FROM_SECONDS = 60.0  # what is shorter is heard in a second or so


class HostAudioEncoder:
    """A speech encoder of `SharedModels`, whose weights ComfyUI keeps on the GPU while there is room."""

    def __init__(self, patcher: Patcher):
        self.patcher = patcher

    def encode(self, voice: Sound) -> EncodedVoice:
        """Speech features (F, layers, channels) of a prepared voice, and their key; those of a long one are kept beside
        the runs, so that going on with one does not hear it again."""
        key = self._key(voice)
        if voice.seconds < KEPT_FROM_SECONDS:
            return EncodedVoice(self._hear(voice), key)
        # To the bit only where the same programs compute on the same machine.
        kept = key_of([key, versions(), str(self.patcher.load_device)])
        return EncodedVoice(feature_cache().get_or_encode(kept, lambda: self._hear(voice)), key)

    def _key(self, voice: Sound) -> str:
        """Of the voice, the encoder's weights and all of its settings."""
        encoder = self.patcher.model
        settings = [encoder.network.config.to_json_string(), encoder.normalise_input, str(encoder.dtype)]
        return key_of([describe(voice), fingerprint_of(self.patcher), settings, describe(encoder.limits)])

    def _hear(self, voice: Sound) -> SpeechFeatures:
        """With a progress bar that can be interrupted; long ones lie in ComfyUI's temp folder."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        bar = comfy.utils.ProgressBar(PROGRESS_STEPS)

        def report(fraction: float) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(round(fraction * PROGRESS_STEPS), PROGRESS_STEPS)

        return self.patcher.model.encode(voice, levelled=True, report=report, scratch=temp_folder())


def load_audio_encoder(path: Path, models: SharedModels | None = None) -> HostAudioEncoder:
    """The wav2vec 2.0 model of a file or folder. models: where loaded weights are shared."""

    def load() -> tuple[Patcher, str]:
        encoder = load_speech_encoder(path)
        # Plain PyTorch layers: always loaded whole (a few hundred MB), never in parts.
        patcher = comfy.model_patcher.ModelPatcher(
            encoder,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        return patcher, encoder.fingerprint

    return HostAudioEncoder((models or SharedModels()).patcher(path, "audio encoder", load))


def feature_cache() -> FeatureCache:
    """Those beside the runs."""
    return FeatureCache(output_folder() / RUNS_FOLDER / "voices")


def give_up_voices(speech: Speech) -> None:
    """Let go of what is kept of a speech: its video is finished."""
    for voice in speech.voices:
        if isinstance(voice, CachedFeatures):
            voice.give_up()


def sound_of(audio: Any) -> Sound:
    """ComfyUI's AUDIO as the engine's Sound, checked."""
    if not isinstance(audio, dict) or "waveform" not in audio or "sample_rate" not in audio:
        raise InputError("there is no sound in this AUDIO input; load a file that has a sound track")
    return check_sound(audio["waveform"], audio["sample_rate"])
