"""Write docs/files.md: the errors of every readable layout of every file, and the error messages for all other files.

    python tools/file_table.py           write it
    python tools/file_table.py --check   fail if the committed page is not up to date

All numbers are measured by this program, on the small models, with the engine alone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from make_tiny_models import Sizes, state_dict
from run_comfyui import make_torchvision_importable
from safetensors.torch import save_file
from weight_layouts import Weights, write_gguf, write_plain, write_scaled_new, write_scaled_old

REPO = Path(__file__).resolve().parent.parent
sys.path.append(str(REPO))
make_torchvision_importable()

from near_misses import NEAR_MISSES  # noqa: E402

from infinitetalk_core.audio.encoder_files import load_speech_encoder  # noqa: E402
from infinitetalk_core.audio.sound import Sound  # noqa: E402
from infinitetalk_core.checkpoints.gguf_dequant import BLOCKS  # noqa: E402
from infinitetalk_core.checkpoints.kinds import WANT_INFINITETALK, CheckpointKind  # noqa: E402
from infinitetalk_core.checkpoints.loaders import open_infinitetalk, open_uni3c  # noqa: E402
from infinitetalk_core.checkpoints.weights_file import READABLE_LAYOUTS, WeightsFile, as_numbers  # noqa: E402
from infinitetalk_core.errors import InputError  # noqa: E402
from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter  # noqa: E402
from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig  # noqa: E402
from infinitetalk_core.model.wan import WanBackbone, WanConfig  # noqa: E402

PAGE = REPO / "docs" / "files.md"
INFINITETALK = "model_patches/tiny_infinitetalk_single.safetensors"
UNI3C = "controlnet/tiny_uni3c.safetensors"
WAV2VEC = "audio_encoders/tiny_wav2vec2.safetensors"
SIZES = Sizes(audio_hidden=256, audio_width=256)  # rows of 256, as required by the K types of GGUF
HEADS = 2
NUMBER = re.compile(r"\d\.\de[-+]\d\d")

Write = Callable[[Path, Weights], None]
SAFETENSORS: dict[str, Write] = {
    "safetensors, fp32": lambda p, w: write_plain(p, w, torch.float32),
    "safetensors, fp16": lambda p, w: write_plain(p, w, torch.float16),
    "safetensors, bf16": lambda p, w: write_plain(p, w, torch.bfloat16),
    "safetensors, fp8_e4m3fn without scales": lambda p, w: write_plain(p, w, torch.float8_e4m3fn),
    "safetensors, fp8 scaled: `scaled_fp8`, `scale_weight`": write_scaled_old,
    "safetensors, fp8 scaled: `weight_scale`, `comfy_quant`": write_scaled_new,
    "safetensors, fp8 scaled: `weight_scale`, `_quantization_metadata`": lambda p, w: write_scaled_new(p, w, True),
    "safetensors, fp8 scaled: a `weight_scale` a row": lambda p, w: write_scaled_new(p, w, rows=True),
}
GGUF: dict[str, Write] = {
    f"GGUF, {kind}": (lambda p, w, kind=kind: write_gguf(p, w, kind)) for kind in ("F16", "BF16", *BLOCKS)
}
UNREADABLE: dict[str, Write] = {
    "safetensors, int8": lambda p, w: save_file({k: torch.from_numpy(v).to(torch.int8) for k, v in w.items()}, p),
    "safetensors, nvfp4": lambda p, w: write_scaled_new(p, w, format_name="nvfp4"),
    "safetensors, mxfp8": lambda p, w: write_scaled_new(p, w, format_name="mxfp8"),
    "safetensors, int8 (`int8_tensorwise`)": lambda p, w: write_scaled_new(
        p, w, in_header=True, format_name="int8_tensorwise"
    ),
    "GGUF, TQ2_0 (and all others)": lambda p, w: write_gguf(p, w, "TQ2_0"),
    "a pickle (.pt, .pth, .ckpt)": lambda p, w: torch.save({k: torch.from_numpy(v) for k, v in w.items()}, p),
    "a download cut short": lambda p, w: _write_truncated(p, w),
    "a web page instead of the file": lambda p, w: _write_text(p, b"<!DOCTYPE html><html>Sign in</html>"),
    "a Git LFS pointer": lambda p, w: _write_text(p, b"version https://git-lfs.github.com/spec/v1\n"),
}


def _write_truncated(path: Path, weights: Weights) -> None:
    write_plain(path, weights, torch.float16)
    path.write_bytes(path.read_bytes()[:-1000])


def _write_text(path: Path, label: bytes) -> None:
    path.write_bytes(label)


def weights_of(file: str, sizes: Sizes | None = None) -> Weights:
    """Return a small model's weights in float32, slightly changed, so that they are not exact in float16."""
    random = np.random.default_rng(0)
    return {
        k: (v * (1 + 1e-3 * random.standard_normal(v.shape))).astype(np.float32)
        for k, v in state_dict(file, sizes).items()
    }


def float_weights(file: WeightsFile) -> dict[str, torch.Tensor]:
    """Return all weights of a file in float32."""
    return as_numbers(file.read().tensors, torch.float32)


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """Return the norm of the difference divided by the norm of `want`."""
    return float((got - want).norm() / want.norm())


def speech_effect() -> Callable[[WeightsFile], torch.Tensor]:
    """Return a function of the InfiniteTalk weights: the effect of the speech on one prediction of the small Wan."""
    wan = {k: v.float() for k, v in _tensors(state_dict("diffusion_models/tiny_wan2.1_i2v.safetensors")).items()}
    backbone = WanBackbone(WanConfig.from_shapes({k: v.shape for k, v in wan.items()}, HEADS)).eval()
    backbone.load_state_dict(wan)
    draw = torch.Generator().manual_seed(0)
    x, text, picture = (
        torch.randn(shape, generator=draw) for shape in ((1, 36, 4, 8, 12), (1, 512, 4096), (1, 257, 1280))
    )

    def predict(file: WeightsFile) -> torch.Tensor:
        config = AdapterConfig.from_shapes(file.shapes, HEADS)
        adapter = AudioAdapter(config).eval()
        adapter.load_state_dict(float_weights(file))
        windows = torch.randn(1, 13, config.window, 1, config.audio_width, generator=torch.Generator().manual_seed(1))
        speech, t = [adapter.speech_tokens(windows)], torch.tensor([600.0])
        with_speech, without = (backbone(x, t, text, picture, adapter, speech, audio_scale=s) for s in (1.0, 0.0))
        return with_speech - without

    return predict


def uni3c_effect(file: WeightsFile) -> torch.Tensor:
    """Return the residuals that Uni3C adds to Wan's blocks."""
    draw = torch.Generator().manual_seed(0)
    network = Uni3C(Uni3CConfig.from_shapes(file.shapes)).eval()
    network.load_state_dict(float_weights(file))
    shapes = ((1, 20, 3, 4, 6), (1, 16, 3, 4, 6), (1, 256), (1, 1, 9, 32, 48), (1, 6, 9, 32, 48))
    return torch.cat(network(*(torch.randn(s, generator=draw) for s in shapes)), dim=1)


def _tensors(weights: Weights) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in weights.items()}


def layout_rows(
    folder: Path,
    weights: Weights,
    layouts: dict[str, Write],
    open_file: Callable[[Path], WeightsFile],
    effect: Callable[[WeightsFile], torch.Tensor],
) -> Iterator[str]:
    """Yield a table row per layout: errors of the weights and of their effect."""
    exact = folder / "exact"
    write_plain(exact, weights, torch.float32)
    want = effect(open_file(exact))
    flat = torch.cat([torch.from_numpy(v).flatten() for v in weights.values()])
    for name, write in layouts.items():
        write(folder / "weights", weights)
        file = open_file(folder / "weights")
        read = float_weights(file)
        error = relative(torch.cat([read[k].flatten() for k in weights]), flat)
        yield f"| {name} | loads | {error:.1e} | {relative(effect(file), want):.1e} |"


def encoder_rows(folder: Path) -> Iterator[str]:
    """Yield a table row per layout of the audio encoder, with the error of its features."""
    weights = _tensors(weights_of(WAV2VEC))
    voice = Sound(torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1, 16000)

    def features(path: Path) -> torch.Tensor:
        return load_speech_encoder(path).encode(voice, leveled=True)

    save_file(weights, folder / "exact.safetensors")
    want = features(folder / "exact.safetensors")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        path = folder / "a.safetensors"
        save_file({k: v.to(dtype) for k, v in weights.items()}, path)
        yield f"| safetensors, {str(dtype)[6:]} | loads | {relative(features(path), want):.1e} |"
    torch.save(weights, folder / "pytorch_model.bin")
    yield f"| pytorch_model.bin (tensors only) | loads | {relative(features(folder / 'pytorch_model.bin'), want):.1e} |"
    for name, dtype in (("int8", torch.int8), ("fp8", torch.float8_e4m3fn)):
        path = folder / "wav2vec2.safetensors"
        save_file({k: v.to(dtype) for k, v in weights.items()}, path)
        yield f"| safetensors, {name} | {refusal_message(load_speech_encoder, path, folder)} | |"
    write_gguf(folder / "wav2vec2.gguf", {k: v.numpy() for k, v in weights.items()}, "Q8_0")
    yield f"| GGUF | {refusal_message(load_speech_encoder, folder / 'wav2vec2.gguf', folder)} | |"


def refusal_message(load: Callable[[Path], object], path: Path, folder: Path) -> str:
    """Return the message of the InputError when the file is loaded."""
    try:
        load(path)
    except InputError as refused:
        return f"*{str(refused).replace(f'{folder}{os.sep}', '')}*"
    raise AssertionError(f"{path} was not refused")


def refusal_rows(folder: Path) -> Iterator[str]:
    """Yield a table row per near miss: the error message of the InfiniteTalk Model Loader."""
    path = folder / "file.safetensors"
    for what, (kind, shapes) in NEAR_MISSES.items():
        if kind is CheckpointKind.WAN_INFINITETALK:
            continue  # no wrong file there
        save_file({k: torch.zeros(s, dtype=torch.uint8) for k, s in shapes.items()}, path)
        yield f"| {what} | {refusal_message(open_infinitetalk, path, folder).replace(WANT_INFINITETALK.advice, '…')} |"


def unreadable_rows(folder: Path, weights: Weights) -> Iterator[str]:
    """Yield a table row per unreadable layout, with the error message."""
    path = folder / "infinitetalk.safetensors"
    for name, write in UNREADABLE.items():
        write(path, weights)
        yield f"| {name} | {refusal_message(open_infinitetalk, path, folder).replace(READABLE_LAYOUTS, '…')} |"


def page_text(folder: Path) -> str:
    """Return the whole page."""
    talk, uni3c = weights_of(INFINITETALK, SIZES), weights_of(UNI3C)
    layouts = SAFETENSORS | GGUF
    table = "| layout | | error of the weights | error of what they add |\n|---|---|---|---|"
    some = {k: v for k, v in layouts.items() if "fp" in k or "Q8_0" in k}
    sections = (
        HEAD,
        "## InfiniteTalk weights, single and multi\n\n" + table,
        *layout_rows(folder, talk, layouts, open_infinitetalk, speech_effect()),
        f"\nNot read, where … is *{READABLE_LAYOUTS}*:\n\n| file | what is said |\n|---|---|",
        *unreadable_rows(folder, talk),
        "\n## Uni3C\n\n" + table,
        *layout_rows(folder, uni3c, some, open_uni3c, uni3c_effect),
        "\n## Audio encoder (wav2vec 2.0)\n\n| layout | | error of the features |\n|---|---|---|",
        *encoder_rows(folder),
        f"{BASE} … is always\n*{WANT_INFINITETALK.advice}*.\n\n| file | what is said |\n|---|---|",
        *refusal_rows(folder),
    )
    return "\n".join(sections) + "\n"


HEAD = """# Which files work

Made by `tools/file_table.py`, which measures every number and reads every sentence from the program; a test fails if
this page is not current. A file is known by its tensors, whatever it is called, with any of the prefixes
`model.diffusion_model.`, `diffusion_model.`, `model.` or none.

Errors are relative (norm of the difference over norm), against the same weights in float32, on small models with
random weights. *What they add* is the difference that the speech makes to one prediction, or the residuals of Uni3C:
several quantized layers act one after the other, so it is larger than the error of one weight. Scaled fp8 and GGUF
weights stay as they are in memory and become numbers on the graphics card where they are used.
"""
BASE = """
## The MODEL

The MODEL is ComfyUI's: whatever its loader reads works. `tests/host/test_base_layouts.py` loads small Wan files with
ComfyUI's own Load Diffusion Model (fp16, bf16, fp8, fp8 scaled in the old layout and in the new one with the format in
the header; in newer ComfyUI also with notes beside the weights) and runs a stand-in for a GGUF loader's MODEL. It
holds what the speech adds to that of the unquantized MODEL.

## Wan and InfiniteTalk in one file

SoulX-FlashTalk-14B and merged exports of InfiniteTalk hold the backbone and the speech layers together. Choose the one
file twice, from models/diffusion_models: in Load Diffusion Model (or the GGUF loader) and in the InfiniteTalk Model
Loader. Each reads its tensors only, in every layout above; the result is that of two separate files, bit for bit
(`tests/pure/test_merged_files.py`, `tests/host/test_merged_files.py`). ComfyUI writes a warning to its log (*unet
unexpected: audio_proj …*), which is that. Files in the layout of the authors' repositories
(`diffusion_pytorch_model-00001-of-…`) are read by no loader of ComfyUI; this makes the two files of them, in the folder
of this pack, with any Python:

    python client/split_model.py SoulX-FlashTalk-14B /path/to/ComfyUI/models

## Other files

What the InfiniteTalk Model Loader says; the other loaders say the same with what they expect. Only the header is read:
28 GB of something else are refused in under a second."""


@torch.inference_mode()
def make_page() -> str:
    """Measure everything and return the page."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return page_text(Path(folder))


def is_same(committed: str, made: str) -> bool:
    """Return whether words are equal and numbers differ by no more than the rounding of another processor."""
    pairs = zip(NUMBER.findall(committed), NUMBER.findall(made), strict=False)
    close = all(abs(float(a) - float(b)) <= 0.1 * float(b) for a, b in pairs)
    return close and NUMBER.sub("x", committed) == NUMBER.sub("x", made)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/files.md.")
    parser.add_argument("--check", action="store_true", help="fail if the committed page differs")
    made = make_page()
    if not parser.parse_args().check:
        PAGE.write_text(made, encoding="utf-8")
        print(f"wrote {PAGE.relative_to(REPO)}")
        return 0
    current = PAGE.exists() and is_same(PAGE.read_text(encoding="utf-8"), made)
    print("docs/files.md is current" if current else "docs/files.md is not current: run python tools/file_table.py")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
