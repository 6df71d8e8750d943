"""A run's models without any host: the engine's own backbone and VAE. For training, evaluation and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from infinitetalk_core.checkpoints.infinitetalk import open_infinitetalk
from infinitetalk_core.checkpoints.uni3c import open_uni3c
from infinitetalk_core.checkpoints.weights_file import as_numbers
from infinitetalk_core.chunks.camera_control import CameraConditioning
from infinitetalk_core.chunks.conditioning import ChunkConditioning
from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter
from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig
from infinitetalk_core.model.vae import WanVae, load_vae
from infinitetalk_core.model.wan import WanBackbone, WanConfig, run_blocks, time_frequencies
from infinitetalk_core.sampling.euler import euler
from infinitetalk_core.sampling.guidance import Guidance, guided
from infinitetalk_core.sampling.schedule import TIMESTEPS
from infinitetalk_core.sampling.sdedit import noised, start_at
from infinitetalk_core.sampling.step_cache import StepCache

from .captions import TOKENS, caption_tokens
from .flow_matching import Dubber

HEAD_SIZE = 128  # of every Wan model

DIFFUSION = "diffusion_models/small_wan2.1_i2v.safetensors"
TALK = "model_patches/small_infinitetalk_single.safetensors"
VAE = "vae/small_wan_vae.safetensors"
SPEECH = "audio_encoders/small_wav2vec2.safetensors"
CAMERA = "controlnet/small_uni3c.safetensors"


@dataclass(frozen=True)
class SmallSizes:
    """Widths of the small models; head size and what ComfyUI's loaders fix are real."""

    dim: int = 256
    ffn_dim: int = 384
    layers: int = 4
    audio_width: int = 256  # speech features of a frame: layers x channels of the speech encoder
    hidden: int = 128
    tokens: int = 8  # audio tokens a latent frame
    token_dim: int = 64


def new_dubber(sizes: SmallSizes, seed: int = 0) -> Dubber:
    """An untrained model. It begins with no motion of its own: the head's weights are zero."""
    torch.manual_seed(seed)
    heads = sizes.dim // HEAD_SIZE
    backbone = WanBackbone(
        WanConfig(dim=sizes.dim, ffn_dim=sizes.ffn_dim, heads=heads, layers=sizes.layers, text_len=TOKENS)
    )
    adapter = AudioAdapter(
        AdapterConfig(
            dim=sizes.dim,
            heads=heads,
            blocks=sizes.layers,
            audio_width=sizes.audio_width,
            hidden=sizes.hidden,
            tokens=sizes.tokens,
            token_dim=sizes.token_dim,
        )
    )
    torch.nn.init.zeros_(backbone.head.head.weight)
    torch.nn.init.zeros_(backbone.head.head.bias)
    for block in backbone.blocks:
        # Without CLIP vision ComfyUI lets the image attention see the text; it must then say nothing.
        torch.nn.init.zeros_(block.cross_attn.v_img.weight)  # type: ignore[union-attr, arg-type]
        torch.nn.init.zeros_(block.cross_attn.v_img.bias)  # type: ignore[union-attr, arg-type]
    return Dubber(backbone, adapter)


def save_dubber(dubber: Dubber, models: Path) -> list[Path]:
    """Write the two parts as people download them (float16, released key names) into a models folder."""
    return [
        save_half(dubber.backbone.state_dict(), models / DIFFUSION),
        save_half(dubber.adapter.state_dict(), models / TALK),
    ]


def save_half(weights: dict[str, Tensor], path: Path) -> Path:
    """Write `weights` as float16, in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({k: v.detach().half().cpu().contiguous() for k, v in weights.items()}, part)
    part.replace(path)
    return path


def load_dubber(models: Path) -> Dubber:
    """The two parts from the files that `save_dubber` writes."""
    wan = {k: v.float() for k, v in load_file(models / DIFFUSION).items()}
    heads = wan["patch_embedding.weight"].shape[0] // HEAD_SIZE
    backbone = WanBackbone(WanConfig.from_state_dict(wan, heads, text_len=TOKENS))
    backbone.load_state_dict(wan)
    file = open_infinitetalk(models / TALK)
    adapter = AudioAdapter(AdapterConfig.from_shapes(file.shapes, heads))
    adapter.load_state_dict(as_numbers(file.read().tensors, torch.float32))
    return Dubber(backbone.eval(), adapter.eval())


def load_camera(models: Path) -> Uni3C:
    """The small Uni3C."""
    file = open_uni3c(models / CAMERA)
    network = Uni3C(Uni3CConfig.from_shapes(file.shapes))
    network.load_state_dict(as_numbers(file.read().tensors, torch.float32))
    return network.eval()


def load_own_vae(models: Path) -> WanVae:
    """The small VAE."""
    return load_vae(models / VAE)


@dataclass(frozen=True)
class OwnModels:
    """What `dub` asks for (chunks/dub.py, Models), on the engine's own modules."""

    dubber: Dubber
    vae: WanVae
    sigmas: Tensor
    guidance: Guidance
    words: str = ""
    camera: Uni3C | None = None
    camera_strength: float = 1.0
    camera_end: float = 1.0  # share of the steps after which the camera is free
    low_precision: bool = True
    new_step_cache: Callable[[], StepCache] | None = None  # called for each chunk; None: no step caching

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (F, H, W, 3) → latents (1, 16, T, h, w)."""
        with self._precision():
            return self.vae.encode(frames[None].to(self._device)).float().cpu()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (1, 16, T, h, w) → frames (F, H, W, 3)."""
        with self._precision():
            return self.vae.decode(latents.to(self._device))[0].float().cpu().clamp(0, 1)

    def encode_image(self, picture: Tensor) -> None:
        """There is no small CLIP vision."""

    @torch.inference_mode()
    def denoise(self, conditioning: ChunkConditioning, after_step: Callable[[int, Tensor], None]) -> Tensor:
        """The chunk's latents, by Euler steps."""
        c, device = conditioning, self._device
        adapter = self.dubber.adapter
        windows, masks = c.windows.to(device), None if c.masks is None else c.masks.to(device)
        speech, silence = adapter.speech_tokens(windows, masks), adapter.silence(windows)
        text = {True: caption_tokens(self.words)[None], False: caption_tokens("")[None]}
        combine = guided(self.guidance)
        branches = self.guidance.branches
        mask, reference = c.mask.to(device), c.reference.to(device)
        cache = None if self.new_step_cache is None else self.new_step_cache()

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            camera = self._camera_share(x, sigma, c) if c.camera is not None else None
            heard = [speech if b.uses_audio else silence for b in branches]
            read = torch.cat([text[b.uses_text] for b in branches]).to(device)
            with self._precision():
                found = self.dubber.predict(
                    x.expand(len(branches), -1, -1, -1, -1),
                    sigma.expand(len(branches)),
                    read,
                    heard,
                    reference,
                    mask,
                    camera,
                    run_blocks if cache is None else cache.around_blocks(range(len(branches)), camera is not None),
                )
            return combine({b: v[None] for b, v in zip(branches, found.float(), strict=True)})

        sigmas = start_at(self.sigmas, c.strength).to(device)
        x = c.noise.to(device)
        if c.source is not None and c.strength < 1:
            x = noised(c.source.to(device), x, sigmas[0])
        return euler(velocity, x, sigmas, c.context.to(device), after_step).cpu()

    def _camera_share(self, x: Tensor, sigma: Tensor, c: ChunkConditioning) -> Callable[[int, Tensor], Tensor] | None:
        end = self.sigmas[min(round(self.camera_end * (len(self.sigmas) - 1)), len(self.sigmas) - 1)]
        if self.camera is None or c.camera is None or (self.camera_end < 1 and sigma < end):
            return None
        return camera_share(self.camera, self.dubber.backbone, x, sigma[None], c.mask, c.camera, self.camera_strength)

    @property
    def _device(self) -> torch.device:
        return next(self.dubber.backbone.parameters()).device

    def _precision(self) -> Any:
        return torch.autocast(self._device.type, torch.bfloat16) if self.low_precision else nullcontext()


def camera_share(
    network: Uni3C,
    backbone: WanBackbone,
    x: Tensor,
    sigma: Tensor,
    mask: Tensor,
    camera: CameraConditioning,
    strength: float = 1.0,
) -> Callable[[int, Tensor], Tensor]:
    """What Uni3C adds after Wan's blocks: for `after_block` of the backbone's forward.

    x (B, 16, T, h, w) as the backbone gets it; sigma (B or 1,); mask (1, 4, T, h, w).
    """
    given = torch.cat([x, mask.to(x).expand(len(x), -1, -1, -1, -1)], dim=1)
    embedded = time_frequencies(sigma * TIMESTEPS, backbone.config.freq_dim).to(x)
    view = None if camera.mask is None else network.view_tokens(camera.mask, camera.rays, x.device)
    states = network.states(given, camera.latents.to(x), backbone.time_embedding(embedded), view)
    residuals = [network.residual(i, state) for i, state in enumerate(states)]

    def after_block(index: int, tokens: Tensor) -> Tensor:
        return torch.add(tokens, residuals[index], alpha=strength) if index < len(residuals) else tokens

    return after_block
