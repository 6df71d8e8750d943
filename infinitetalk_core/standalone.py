"""The engine without ComfyUI: `TorchBackend` runs a job in plain PyTorch, for research, training and evaluation.

Everything is on one device; nothing is offloaded. docs/python-api.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, autocast, nn

from .checkpoints.loaders import open_infinitetalk, open_uni3c, open_wan
from .checkpoints.weights_file import WeightsFile, as_numbers
from .chunks.assembly import Assembly
from .chunks.camera_control import CameraConditioning
from .chunks.conditioning import ChunkConditioning
from .chunks.dub import AfterStep, Models, dub
from .chunks.groups import plan_groups
from .chunks.job import Job, Sampling
from .chunks.plan import Chunk
from .clip_image import clip_pixels
from .errors import InputError
from .model import vae
from .model.audio_adapter import AdapterConfig, AudioAdapter
from .model.infinitetalk import InfiniteTalkModel
from .model.uni3c import Uni3C, Uni3CConfig
from .model.vae import WanVae, fast
from .model.wan import BlockRunner, WanBackbone, WanConfig, run_blocks, time_frequencies
from .runs.worker import Worker
from .sampling.euler import euler, pin
from .sampling.guidance import guided
from .sampling.renoise import renoise
from .sampling.schedule import TIMESTEPS
from .sampling.sdedit import noised, start_at
from .sampling.step_cache import StepCache
from .video.segment import to_pictures
from .video.soundtrack import encode_sound
from .video.writer import VideoWriter

HEAD_SIZE = 128  # of every Wan model; a checkpoint does not contain it
TEXT_TOKENS = 512


class VideoVae(Protocol):
    """A Wan 2.1 VAE: frames (B, F, H, W, 3) in [0, 1] <-> latents (B, 16, T, h, w) of mean 0 and deviation 1."""

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames; F = 4 T - 3."""

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents."""


@dataclass(frozen=True)
class TorchBackend:
    """The models of a job (`Models` in chunks/dub.py) on the engine's own backbone.

    sampling: the job's. encode_text: prompt -> text embeddings (1, M <= 512, text_dim), of umT5 in the released model;
    None: the embeddings are zeros. clip_vision: pixels (1, 3, 224, 224), normalized by `clip_pixels`, -> CLIP tokens
    (1, 257, 1280); None: no CLIP tokens. autocast: the dtype in which models compute, if not that of their weights.
    """

    model: InfiniteTalkModel
    vae: VideoVae
    sampling: Sampling = field(default_factory=Sampling)
    prompt: str = ""
    negative_prompt: str = ""
    encode_text: Callable[[str], Tensor] | None = None
    clip_vision: Callable[[Tensor], Tensor] | None = None
    autocast: torch.dtype | None = None

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (F, H, W, 3) to latents (1, 16, T, h, w)."""
        with self._autocast():
            return self.vae.encode(frames[None].to(self.device)).float().cpu()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (1, 16, T, h, w) to frames (F, H, W, 3)."""
        with self._autocast():
            return self.vae.decode(latents.to(self.device))[0].float().cpu().clamp(0, 1)

    @torch.inference_mode()
    def encode_image(self, picture: Tensor) -> Tensor | None:
        """Encode a picture (H, W, 3) to CLIP tokens (1, 257, 1280); None without CLIP vision."""
        if self.clip_vision is None:
            return None
        with self._autocast():
            return self.clip_vision(clip_pixels(picture.to(self.device)))

    @torch.inference_mode()
    def denoise(self, conditioning: ChunkConditioning, after_step: AfterStep) -> Tensor:
        """Return the denoised latents (1, 16, T, h, w) of a chunk, by Euler steps or by estimates noised anew."""
        c, device, sampling = conditioning, self.device, self.sampling
        adapter = self.model.adapter
        # Outside of autocast: audio tokens and Uni3C are computed in the dtype of their weights.
        windows = c.audio_windows.to(device, _dtype_of(adapter))
        masks = None if c.masks is None else c.masks.to(device)
        speech, silence = adapter.speech_tokens(windows, masks), adapter.silence(windows)
        dtype = _dtype_of(self.model.backbone)
        prompts = {b: self.prompt if b.uses_text else self.negative_prompt for b in sampling.guidance.branches}
        texts = {branch: self._text(prompt) for branch, prompt in prompts.items()}
        mask, reference = c.mask.to(device), c.reference.to(device)
        combine = guided(sampling.guidance)
        cache = self.new_step_cache()
        sigmas = start_at(sampling.schedule, c.strength).to(device)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            branches = sampling.guidance.branches_at(float(sigma), sigmas)
            after_block = self._uni3c(x, sigma, c)
            runner: BlockRunner = run_blocks
            if cache is not None:
                runner = cache.block_runner(range(len(branches)), (after_block is not None, branches))
            with self._autocast():
                v = self.model.predict(
                    x.to(dtype).expand(len(branches), -1, -1, -1, -1),
                    sigma.expand(len(branches)),
                    torch.cat([texts[b] for b in branches]).to(dtype),
                    [speech if b.uses_audio else silence for b in branches],
                    reference,
                    mask,
                    None if c.clip is None else c.clip.to(device, dtype).expand(len(branches), -1, -1),
                    after_block,
                    runner,
                )
            return combine({b: item[None] for b, item in zip(branches, v.float(), strict=True)})

        x = c.noise.to(device)
        if c.source is not None and c.strength < 1:
            x = noised(c.source.to(device), x, sigmas[0])
        context = c.context.to(device)
        if not sampling.settings.renoise:
            return euler(velocity, x, sigmas, context, after_step).cpu()

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            x = pin(x, context)
            return pin(x - sigma * velocity(x, sigma), context)

        return renoise(denoise, x, sigmas, c.seed, lambda step, denoised, x: after_step(step, denoised)).cpu()

    def new_step_cache(self) -> StepCache | None:
        """Create the step cache of a chunk; None without step caching."""
        caching = self.sampling.step_cache
        return None if caching is None else StepCache(caching)

    @property
    def device(self) -> torch.device:
        """The device of the backbone, where everything is computed."""
        return next(self.model.backbone.parameters()).device

    def _text(self, prompt: str) -> Tensor:
        if self.encode_text is None:
            return torch.zeros(1, 1, self.model.backbone.config.text_dim, device=self.device)
        return self.encode_text(prompt).to(self.device)

    def _uni3c(self, x: Tensor, sigma: Tensor, c: ChunkConditioning) -> Callable[[int, Tensor], Tensor] | None:
        camera = self.sampling.camera
        if camera is None or c.camera is None or not camera.acts_at(float(sigma), self.sampling.schedule):
            return None
        return add_uni3c(
            camera.controlnet.value, self.model.backbone, x, sigma[None], c.mask, c.camera, camera.strength
        )

    def _autocast(self) -> Any:
        return nullcontext() if self.autocast is None else autocast(self.device.type, self.autocast)


def add_uni3c(
    network: Uni3C,
    backbone: WanBackbone,
    x: Tensor,
    sigma: Tensor,
    mask: Tensor,
    camera: CameraConditioning,
    strength: float = 1.0,
) -> Callable[[int, Tensor], Tensor]:
    """Compute Uni3C's residuals for a step; return the `after_block` of the backbone that adds them.

    x (B, 16, T, h, w): the noisy latents; sigma (B or 1,); mask (1, 4, T, h, w): m.
    """
    x = x.to(network.proj_out[0].weight.dtype)  # type: ignore[arg-type]
    latents = torch.cat([x, mask.to(x).expand(len(x), -1, -1, -1, -1)], dim=1)
    frequencies = time_frequencies(sigma * TIMESTEPS, backbone.config.freq_dim)
    time = backbone.time_embedding(frequencies.to(x.device, _dtype_of(backbone))).to(x)
    residuals = network(latents, camera.latents.to(x), time, camera.mask, camera.rays)

    def after_block(index: int, tokens: Tensor) -> Tensor:
        return torch.add(tokens, residuals[index], alpha=strength) if index < len(residuals) else tokens

    return after_block


def _dtype_of(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def load_model(
    wan: Path,
    infinitetalk: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    text_tokens: int = TEXT_TOKENS,
) -> InfiniteTalkModel:
    """Load Wan 2.1 I2V and InfiniteTalk weights from files of any layout; quantized weights are dequantized to `dtype`.

    dtype: None for bfloat16 on a GPU and float32 on a CPU, where bfloat16 may be many times slower. text_tokens: the
    length to which text embeddings are padded. Raises InputError for files of another kind, and where the two do not
    fit each other.
    """
    base, talk = open_wan(wan), open_infinitetalk(infinitetalk)
    dim = base.shapes.sizes("patch_embedding.weight", 5)[0]
    heads = dim // HEAD_SIZE
    if dim % HEAD_SIZE:
        raise InputError(
            f"{wan.name} is a model of width {dim}, which is not whole heads of {HEAD_SIZE}; get another copy"
        )
    config = WanConfig.from_shapes(base.shapes, heads, text_tokens)
    audio = AdapterConfig.from_shapes(talk.shapes, heads)
    if (audio.dim, audio.blocks) != (config.dim, config.layers):
        raise InputError(
            f"{infinitetalk.name} is made for a model of {audio.blocks} blocks of width {audio.dim}, but {wan.name} "
            f"has {config.layers} blocks of width {config.dim}"
        )
    backbone = _load(partial(WanBackbone, config), base, device, dtype)
    return InfiniteTalkModel(backbone, _load(partial(AudioAdapter, audio), talk, device, dtype))


def load_uni3c(path: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Uni3C:
    """Load the Uni3C ControlNet from a file of any layout. Raises InputError for a file of another kind."""
    file = open_uni3c(path)
    network: Uni3C = _load(partial(Uni3C, Uni3CConfig.from_shapes(file.shapes)), file, device, dtype)
    # They are computed in float32, whatever the dtype of the others.
    for embedding in (network.controlnet_patch_embedding, network.controlnet_mask_embedding):
        embedding.float()
    return network


def load_vae(path: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> WanVae:
    """Load a Wan 2.1 VAE of any width from a safetensors file with the released tensor names."""
    return fast(vae.load_vae(path), dtype or _default_dtype(device)).to(device)


def _default_dtype(device: torch.device | str) -> torch.dtype:
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def _load(make: Callable[[], Any], file: WeightsFile, device: torch.device | str, dtype: torch.dtype | None) -> Any:
    with torch.device("meta"):
        module: nn.Module = make()
    file.shapes.check({name: tensor.shape for name, tensor in module.state_dict().items()})
    module.load_state_dict(as_numbers(file.read().tensors, dtype or _default_dtype(device)), assign=True)
    return module.to(device).requires_grad_(False).train(False)


def write_video(
    path: Path,
    job: Job,
    models: Models,
    after_step: Callable[[Chunk, int, Tensor], None] = lambda chunk, step, denoised: None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Make the video of `job` chunk by chunk and write it with its sound to `path` (.mp4, .m4v or .mov).

    One chunk is in memory at a time, and the pictures of the one before it, which are encoded meanwhile. An exception
    leaves the frames so far as `…_interrupted.mp4`; a run that can be resumed is `runs.session.execute_run`. Raises
    InputError for settings that do not fit, and an existing `path`.
    """
    job.check()
    video_format = job.output.format
    with (
        VideoWriter(path, encode_sound(job.speech.sound), metadata=metadata) as writer,
        Assembly(writer, plan_groups([planned.chunk for planned in job.plan]), video_format) as assembly,
        Worker() as worker,
    ):

        def checked(chunk: Chunk, step: int, denoised: Tensor) -> None:
            worker.check()
            after_step(chunk, step, denoised)

        def append(frames: list[Tensor]) -> None:
            pictures = to_pictures(frames.pop(), video_format)  # taken out, so that nothing else keeps them
            assembly.add(len(pictures), pictures)

        for output in dub(job, models, checked):
            worker.start(partial(append, [output.frames]))
            del output
    return path
