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
from ...infinitetalk_core.speech import Voice
from .files import temp_folder
from .patchers import Patcher
from .shared_models import SharedModels

PROGRESS_STEPS = 100


class HostAudioEncoder:
    """A speech encoder whose weights ComfyUI keeps on the GPU while there is room."""

    def __init__(self, patcher: Patcher):
        self.patcher = patcher

    def encode(self, voice: Sound) -> Voice:
        """Speech features (F, layers, channels) of a prepared voice, with a progress bar that can be interrupted; those
        of a long one lie in ComfyUI's temp folder."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        bar = comfy.utils.ProgressBar(PROGRESS_STEPS)

        def report(fraction: float) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(round(fraction * PROGRESS_STEPS), PROGRESS_STEPS)

        return self.patcher.model.encode(voice, levelled=True, report=report, scratch=temp_folder())


def load_audio_encoder(path: Path, models: SharedModels | None = None) -> HostAudioEncoder:
    """The wav2vec 2.0 model of a file or folder. models: where loaded weights are shared."""

    def load() -> Patcher:
        # Plain PyTorch layers: always loaded whole (a few hundred MB), never in parts.
        return comfy.model_patcher.ModelPatcher(
            load_speech_encoder(path),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    return HostAudioEncoder((models or SharedModels()).patcher(path, "audio encoder", load))


def sound_of(audio: Any) -> Sound:
    """ComfyUI's AUDIO as the engine's Sound, checked."""
    if not isinstance(audio, dict) or "waveform" not in audio or "sample_rate" not in audio:
        raise InputError("there is no sound in this AUDIO input; load a file that has a sound track")
    return check_sound(audio["waveform"], audio["sample_rate"])
