"""InfiniteTalk (arXiv 2508.14033): dubbing of videos of any length by speech. The engine, without ComfyUI.

What `__all__` names is the public interface; docs/python-api.md has an example.
"""

from .audio.encoder_files import load_speech_encoder
from .audio.reading import read_sound
from .audio.sound import Sound
from .audio.wav2vec import SpeechEncoder
from .chunks.camera_control import CameraControl, FilmedGuide
from .chunks.dub import ChunkOutput, ContextFrames, Models, dub
from .chunks.job import ColorHold, Job, Output, Reference, Sampling
from .chunks.pinned import Pinned
from .chunks.plan import Chunk
from .chunks.reference import AfterEnd, PlannedChunk, Policy, ReferenceSettings
from .errors import InputError
from .fingerprint import Component
from .model.infinitetalk import InfiniteTalkModel
from .model.uni3c import Uni3C
from .model.vae import WanVae
from .sampling.guidance import Apg, Guidance
from .sampling.settings import PRESETS, SamplingSettings
from .sampling.step_cache import StepCaching
from .speaker_masks import Area
from .speech import Speech, Timing, encode_speakers, encode_speech
from .standalone import TorchBackend, VideoVae, load_model, load_uni3c, load_vae, write_video
from .video.format import VideoFormat
from .video.source import FrameSource, PictureBatch, VideoFile, open_source

__all__ = [
    "PRESETS",
    "AfterEnd",
    "Apg",
    "Area",
    "CameraControl",
    "Chunk",
    "ChunkOutput",
    "ColorHold",
    "Component",
    "ContextFrames",
    "FilmedGuide",
    "FrameSource",
    "Guidance",
    "InfiniteTalkModel",
    "InputError",
    "Job",
    "Models",
    "Output",
    "PictureBatch",
    "Pinned",
    "PlannedChunk",
    "Policy",
    "Reference",
    "ReferenceSettings",
    "Sampling",
    "SamplingSettings",
    "Sound",
    "Speech",
    "SpeechEncoder",
    "StepCaching",
    "Timing",
    "TorchBackend",
    "Uni3C",
    "VideoFile",
    "VideoFormat",
    "VideoVae",
    "WanVae",
    "dub",
    "encode_speakers",
    "encode_speech",
    "load_model",
    "load_speech_encoder",
    "load_uni3c",
    "load_vae",
    "open_source",
    "read_sound",
    "write_video",
]
