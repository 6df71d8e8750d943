"""Imports of the public names, which `infinitetalk_core` hands out on first use."""

# ruff: noqa: F401
from .audio.encoder_files import load_speech_encoder
from .audio.reading import read_sound
from .audio.sound import Sound
from .audio.wav2vec import SpeechEncoder
from .chunks.camera_control import CameraControl, FilmedGuide
from .chunks.dub import ChunkOutput, ContextFrames, Models, dub
from .chunks.job import ColorHold, HoldBy, Job, Output, Reference, Sampling
from .chunks.pinned import Pinned
from .chunks.plan import Chunk
from .chunks.reference import AfterEnd, PlannedChunk, Policy, ReferenceSettings
from .errors import InputError, RunError
from .fingerprint import Component
from .model.infinitetalk import InfiniteTalkModel
from .model.uni3c import Uni3C
from .model.vae import WanVae
from .sampling.guidance import Apg, Guidance
from .sampling.settings import PRESETS, SamplingSettings
from .sampling.step_cache import StepCaching
from .speakers import Area
from .speech import Speech, Timing, encode_speakers, encode_speech
from .standalone import TorchBackend, VideoVae, load_model, load_uni3c, load_vae, write_video
from .video.format import VideoFormat
from .video.source import FrameSource, PictureBatch, VideoFile, open_source
