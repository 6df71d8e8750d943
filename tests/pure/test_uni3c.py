"""Uni3C loads from every layout in the wild, and its mask and camera say something."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from infinitetalk_core.checkpoints.loaders import open_infinitetalk, open_uni3c
from infinitetalk_core.errors import InputError
from infinitetalk_core.model.attention import sdpa
from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig

CONFIG = Uni3CConfig(
    dim=24, ffn_dim=32, heads=2, blocks=2, embed_dim=40, time_dim=16, out_dim=48, view_channels=7, view_dim=16
)
T, H, W = 3, 4, 6  # latents: 9 frames of 32 x 48 pixels
FRAMES = (9, 8 * H, 8 * W)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def uni3c():
    return Uni3C(CONFIG).eval()


def inputs(batch: int = 1):
    """First 20 channels of Wan's input, guidance latents, time embedding."""
    return torch.randn(batch, 20, T, H, W), torch.randn(1, 16, T, H, W), torch.randn(batch, CONFIG.time_dim)


def views():
    """A render mask and a camera embedding."""
    return (torch.rand(1, 1, *FRAMES) > 0.5).float(), torch.randn(1, 6, *FRAMES)


def as_wan_names(name: str) -> str:
    for ours, wan in {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o"}.items():
        name = name.replace(f"self_attn.{ours}.", f"self_attn.{wan}.")
    return name


def as_the_authors_have_it(name: str) -> str:
    beside = name.startswith(("controlnet_patch_embedding", "controlnet_mask_embedding"))
    return name if beside else f"controlnet.{name}"


LAYOUTS = {
    "released": lambda name: name,
    "ComfyUI": as_wan_names,
    "authors": as_the_authors_have_it,
    "prefixed": lambda name: f"model.diffusion_model.{name}",
    "prefixed, ComfyUI": lambda name: f"diffusion_model.{as_wan_names(name)}",
}


def save(path, weights, dtype=torch.float32):
    save_file({k: v.to(dtype).contiguous() for k, v in weights.items()}, path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_load_from_every_plain_layout(uni3c, layout, dtype, tmp_path):
    weights = uni3c.state_dict()
    path = save(tmp_path / "x.safetensors", {LAYOUTS[layout](k): v for k, v in weights.items()}, dtype)
    file = open_uni3c(path)
    assert Uni3CConfig.from_shapes(file.shapes, heads=2) == CONFIG
    loaded = file.read().tensors
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert loaded[name].dtype == dtype
        torch.testing.assert_close(loaded[name].float(), tensor.to(dtype).float(), atol=0, rtol=0)


def test_no_projection_where_the_patches_have_the_blocks_width(tmp_path):
    config = replace(CONFIG, embed_dim=CONFIG.dim)
    model = Uni3C(config)
    file = open_uni3c(save(tmp_path / "x.safetensors", model.state_dict()))
    assert "proj_in.weight" not in file.shapes
    assert Uni3CConfig.from_shapes(file.shapes, heads=2) == config
    assert model(*inputs())[1].shape == (1, T * H * W // 4, CONFIG.out_dim)


def test_the_default_sizes_are_the_released_models():
    with torch.device("meta"):
        released = Uni3C(Uni3CConfig())
    assert Uni3CConfig.from_shapes({k: tuple(v.shape) for k, v in released.state_dict().items()}) == Uni3CConfig()
    assert Uni3CConfig().dim // Uni3CConfig().heads == 64


def test_other_files_are_refused_in_one_sentence(uni3c, tmp_path):
    weights = uni3c.state_dict()
    lora = {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.zeros(4, 8)}
    cases = {
        r"is a LoRA .*, not a Uni3C ControlNet; get a Uni3C .*Wan21_Uni3C": save(tmp_path / "lora.safetensors", lora),
        "stored as I8, which cannot be read; use a safetensors": save(
            tmp_path / "int8.safetensors", weights, torch.int8
        ),
    }
    for words, path in cases.items():
        with pytest.raises(InputError, match=words):
            open_uni3c(path)
    with pytest.raises(InputError, match=r"is a Uni3C ControlNet .*not InfiniteTalk weights"):
        open_infinitetalk(save(tmp_path / "uni3c.safetensors", weights))
    (tmp_path / "controlnet.pth").write_bytes(b"PK" + bytes(100))  # as the authors publish it
    with pytest.raises(InputError, match="pickle, which can run code"):
        open_uni3c(tmp_path / "controlnet.pth")


def test_sizes_that_cannot_be_are_refused(uni3c):
    shapes = {k: tuple(v.shape) for k, v in uni3c.state_dict().items()}
    with pytest.raises(InputError, match=r"lacks the tensor proj_out\.0\.weight; download it again"):
        Uni3CConfig.from_shapes({k: v for k, v in shapes.items() if "proj_out" not in k})
    with pytest.raises(InputError, match=r"takes 32 channels, and Wan 2\.1 I2V with a guidance video gives 36"):
        Uni3CConfig.from_shapes(shapes | {"controlnet_patch_embedding.weight": (40, 32, 1, 2, 2)})
    with pytest.raises(InputError, match="width 24 cannot be shared by 16 heads"):
        Uni3CConfig.from_shapes(shapes)


@torch.inference_mode()
def test_mask_and_camera_matter(uni3c):
    given, (mask, camera) = inputs(), views()
    none, both = uni3c(*given), uni3c(*given, mask, camera)
    other_mask, other_camera = uni3c(*given, 1 - mask, camera), uni3c(*given, mask, -camera)
    for i in range(CONFIG.blocks):
        for other in (none, other_mask, other_camera):
            assert (both[i] - other[i]).norm() > 1e-3 * both[i].norm()


@torch.inference_mode()
def test_zeros_for_a_mask_are_not_the_same_as_no_mask():
    """As in the reference, where the biases of the mask's embedding speak up: "all is seen" is information."""
    model, given = Uni3C(replace(CONFIG, view_channels=1)).eval(), inputs()
    none, seen = model(*given), model(*given, torch.zeros(1, 1, *FRAMES))
    assert all((a - b).norm() > 1e-3 * a.norm() for a, b in zip(none, seen, strict=True))
    nn.init.zeros_(model.controlnet_mask_embedding.mask_zero_proj.weight)
    nn.init.zeros_(model.controlnet_mask_embedding.mask_zero_proj.bias)
    untrained = model(*given, torch.zeros(1, 1, *FRAMES))
    assert all(torch.equal(a, b) for a, b in zip(none, untrained, strict=True))


@torch.inference_mode()
def test_views_enter_as_one_convolution_after_three_frames_of_zeros(uni3c):
    """Taken a latent frame at a time they give what the plain formula gives."""
    embedding = uni3c.controlnet_mask_embedding
    mask, camera = views()
    padded = F.pad(torch.cat([mask, camera], dim=1), (0, 0, 0, 0, 3, 0))
    want = embedding.mask_zero_proj(embedding.mask_proj(padded)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(uni3c.view_tokens(mask, camera, torch.device("cpu")), want, atol=1e-6, rtol=1e-5)


def test_views_that_do_not_fit_are_refused(uni3c):
    given, (mask, camera) = inputs(), views()
    cases = {
        r"takes a render mask and a camera embedding \(7 channels\), got 1; connect": (mask, None),
        r"\(7 channels\), got 6; connect": (None, camera),
        "9 frames of 48 x 32 and the camera embedding 5 frames of 48 x 32; take both": (mask, camera[:, :, :5]),
        "4n.1 frames of multiples of 16 pixels, got 8 frames": (mask[:, :, 1:], camera[:, :, 1:]),
        "multiples of 16 pixels, got 9 frames of 40 x 32": (mask[..., 8:], camera[..., 8:]),
        "size or length of the chunk, 9 frames of 48 x 32 pixels": (mask[:, :, :5], camera[:, :, :5]),
    }
    for words, (some_mask, some_camera) in cases.items():
        with pytest.raises(InputError, match=words):
            uni3c(*given, some_mask, some_camera)
    with pytest.raises(InputError, match=r"takes a render mask alone \(1 channels\), got 1 and 6"):
        Uni3C(replace(CONFIG, view_channels=1))(*given, mask, camera)


@torch.inference_mode()
def test_items_of_a_batch_are_controlled_apart_and_share_one_view(uni3c):
    (x, render, temb), (mask, camera) = inputs(2), views()
    together = uni3c(x, render, temb, mask, camera)
    for i in range(2):
        alone = uni3c(x[i : i + 1], render, temb[i : i + 1], mask, camera)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i : i + 1], b, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_block_by_block_is_the_same_and_computes_only_what_is_asked(uni3c):
    (x, render, temb), (mask, camera) = inputs(), views()
    calls = []

    def counted(q, k, v, heads):
        calls.append(heads)
        return sdpa(q, k, v, heads)

    view = uni3c.view_tokens(mask, camera, x.device)
    states = uni3c.states(x, render, temb, view, counted)
    first = uni3c.residual(0, next(states))
    assert calls == [CONFIG.heads]
    torch.testing.assert_close(first, uni3c(x, render, temb, mask, camera)[0], atol=0, rtol=0)


class Casting:
    """Layers that compute in their input's type, whatever their weights' type, as a host's do."""

    class Linear(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight.to(x), self.bias.to(x))

    class Conv3d(nn.Conv3d):
        def forward(self, x):
            return self._conv_forward(x, self.weight.to(x), self.bias.to(x))

    class LayerNorm(nn.LayerNorm):
        def forward(self, x):
            return F.layer_norm(x, self.normalized_shape, self.weight.to(x), self.bias.to(x), self.eps)

    class RMSNorm(nn.RMSNorm):
        def forward(self, x):
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x), self.eps)

    class GroupNorm(nn.GroupNorm):
        def forward(self, x):
            return F.group_norm(x, self.num_groups, self.weight.to(x), self.bias.to(x), self.eps)


@pytest.mark.parametrize(
    ("stored", "computed", "limit"),
    [
        (torch.float16, torch.float32, 1e-3),
        (torch.float16, torch.float16, 3e-3),
        (torch.bfloat16, torch.bfloat16, 3e-2),
        (torch.float8_e4m3fn, torch.bfloat16, 1e-1),
    ],
)
@torch.inference_mode()
def test_weights_in_other_types_say_nearly_the_same(uni3c, stored, computed, limit):
    (x, render, temb), (mask, camera) = inputs(), views()
    want = uni3c(x, render, temb, mask, camera)
    other = Uni3C(CONFIG, Casting, device="meta").eval()
    other.load_state_dict({k: v.to(stored) for k, v in uni3c.state_dict().items()}, assign=True)
    got = other(x.to(computed), render, temb.to(computed), mask.to(torch.uint8), camera.half())
    for a, b in zip(got, want, strict=True):
        assert a.dtype == computed
        assert (a.float() - b).norm() < limit * b.norm()
