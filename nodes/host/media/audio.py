"""The audio encoder as a model that ComfyUI loads and frees, and the conversion of AUDIO to `Sound`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils

from ....infinitetalk_core.audio.encoder_files import load_speech_encoder
from ....infinitetalk_core.audio.sound import Sound, check_sound
from ....infinitetalk_core.fingerprint import describe, key_of
from ....infinitetalk_core.runs.feature_cache import CachedFeatures, FeatureCache
from ....infinitetalk_core.speech import EncodedVoice, Speech, SpeechFeatures
from ..model.environment import versions
from ..model.model_files import temp_folder
from ..model.patchers import Patcher
from ..model.shared_models import SharedModels, fingerprint_of
from .foreign_sound import waveform_of
from .video import RUNS_FOLDER, output_folder

PROGRESS_STEPS = 100
KEPT_FROM_SECONDS = 60.0  # shorter voices are encoded in about a second


class HostAudioEncoder:
    """A speech encoder from `SharedModels`; ComfyUI keeps its weights on the GPU while there is memory."""

    def __init__(self, patcher: Patcher):
        self.patcher = patcher

    def encode(self, voice: Sound) -> EncodedVoice:
        """Return the speech features (F, layers, channels) of a prepared voice, and their key.

        Features of a voice of at least 60 s are cached beside the runs, so that a continued run need not encode it.
        """
        key = self._key(voice)
        if voice.seconds < KEPT_FROM_SECONDS:
            return EncodedVoice(self._encode(voice), key)
        # Features are equal to the bit only with the same program versions on the same device.
        cache_key = key_of([key, versions(), str(self.patcher.load_device)])
        return EncodedVoice(feature_cache().get_or_encode(cache_key, lambda: self._encode(voice)), key)

    def _key(self, voice: Sound) -> str:
        """Return the key of the voice, the encoder's weights and all of its settings."""
        encoder = self.patcher.model
        settings = [encoder.network.config.to_json_string(), encoder.normalize_input, str(encoder.dtype)]
        return key_of([describe(voice), fingerprint_of(self.patcher), settings, describe(encoder.limits)])

    def _encode(self, voice: Sound) -> SpeechFeatures:
        """Encode with a progress bar that can be interrupted; features of long voices go to ComfyUI's temp folder."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        bar = comfy.utils.ProgressBar(PROGRESS_STEPS)

        def report(fraction: float) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(round(fraction * PROGRESS_STEPS), PROGRESS_STEPS)

        return self.patcher.model.encode(voice, leveled=True, report=report, scratch=temp_folder())


def load_audio_encoder(path: Path, models: SharedModels | None = None) -> HostAudioEncoder:
    """Load the wav2vec 2.0 model of a file or folder.

    models: the cache of loaded weights; None: load them for this caller alone.
    """

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
    """Return the feature cache in the runs folder."""
    return FeatureCache(output_folder() / RUNS_FOLDER / "voices")


def remove_cached_features(speech: Speech) -> None:
    """Give up the cached features of a speech once its video is finished."""
    for voice in speech.voices:
        if isinstance(voice, CachedFeatures):
            voice.delete_file()


def sound_of(audio: Any, name: str = "audio") -> Sound:
    """Convert AUDIO, as any pack hands it over, to a checked `Sound`. name: of the input, for the error.

    Raises InputError where it has no sound, or it is not sure what the samples mean.
    """
    return check_sound(*waveform_of(audio, name))
