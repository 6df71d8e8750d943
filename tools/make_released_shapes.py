"""Write random weights in the shapes, types and layouts of the released files, under the names in the workflows.

    python tools/make_released_shapes.py MODELS_DIR

Widths, tensor names, types and the whole text encoder and CLIP vision are the released ones. Of the layers of Wan, of
its LoRA, of InfiniteTalk and of Uni3C only the first ones are written (--layers 2), 12 GB in all. With all layers the
sizes are those of the published files within 0.01 % (tests/pure/test_released_shapes.py), which decides what no
description says: which tensors of InfiniteTalk and Uni3C are float32, and which layers the LoRA changes as a whole.

A tensor's first BLOCK numbers are drawn and then repeated, so that writing takes a minute and little memory.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from make_tiny_models import (
    Shape,
    Sizes,
    Weight,
    Weights,
    _layer,
    _norm,
    infinitetalk_weights,
    uni3c_weights,
    vae_weights,
    wan_weights,
    wav2vec2_weights,
)
from torch import Tensor
from weight_layouts import FP8_MAX

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
BLOCK = 4_194_301  # a prime number, so that the repeats do not make rows equal
RELEASED_LAYERS, UNI3C_LAYERS = 40, 20
VOCABULARY, TEXT_LAYERS, TEXT_HEADS, TEXT_FFN = 256_384, 24, 64, 10_240
CLIP_LAYERS, CLIP_FFN, CLIP_PATCHES, CLIP_OUT = 32, 5120, 257, 1024
RELEASED = Sizes(
    wan_dim=5120,
    wan_layers=RELEASED_LAYERS,
    wan_ffn=13824,
    vae_dim=96,
    speech_layers=12,
    speech_channels=768,
    speech_ffn=3072,
    speech_conv=512,
    audio_hidden=512,
    audio_width=768,
    lora_rank=64,
    control_dim=1024,
    control_layers=UNI3C_LAYERS,
    control_ffn=4096,
    control_view=256,
)
TYPE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.uint8: "U8",
    torch.int64: "I64",
}


@dataclass(frozen=True)
class Stored:
    """A tensor of a file. block(): its first numbers, flat; they are repeated to the tensor's length."""

    name: str
    shape: Shape
    dtype: torch.dtype
    block: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """Return its length in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


Tensors = Iterator[Stored]


def with_layers(layers: int) -> Sizes:
    """Return the released sizes with `layers` layers of Wan and Uni3C."""
    return replace(RELEASED, wan_layers=layers, control_layers=min(layers, UNI3C_LAYERS))


# -- tensors


def text_encoder_weights(s: Sizes) -> Weights:
    """Return umt5-xxl's encoder."""
    width = s.text_width
    yield "shared.weight", Weight((VOCABULARY, width), 1.0)
    for i in range(TEXT_LAYERS):
        attention, feed = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        # T5 does not scale the products of queries and keys; their sizes do.
        for part, gain in (("q", 1 / math.sqrt(width / TEXT_HEADS)), ("k", 1.0), ("v", 1.0), ("o", 1.0)):
            yield from _layer(f"{attention}.SelfAttention.{part}", width, (width,), gain, bias=False)
        yield f"{attention}.SelfAttention.relative_attention_bias.weight", Weight((32, TEXT_HEADS), 1.0)
        yield from _norm(f"{attention}.layer_norm", width, bias=False)
        yield from _layer(f"{feed}.DenseReluDense.wi_0", TEXT_FFN, (width,), bias=False)
        yield from _layer(f"{feed}.DenseReluDense.wi_1", TEXT_FFN, (width,), bias=False)
        yield from _layer(f"{feed}.DenseReluDense.wo", width, (TEXT_FFN,), bias=False)
        yield from _norm(f"{feed}.layer_norm", width, bias=False)
    yield from _norm("encoder.final_layer_norm", width, bias=False)


def clip_vision_weights(s: Sizes) -> Weights:
    """Return CLIP ViT-H/14's picture encoder."""
    width = s.clip_width
    yield "vision_model.embeddings.class_embedding", Weight((width,), 0.02)
    yield from _layer("vision_model.embeddings.patch_embedding", width, (3, 14, 14), bias=False)
    yield "vision_model.embeddings.position_embedding.weight", Weight((CLIP_PATCHES, width), 0.02)
    yield from _norm("vision_model.pre_layrnorm", width)  # spelled so in all files
    for i in range(CLIP_LAYERS):
        block = f"vision_model.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _layer(f"{block}.self_attn.{part}", width, (width,))
        yield from _norm(f"{block}.layer_norm1", width)
        yield from _layer(f"{block}.mlp.fc1", CLIP_FFN, (width,))
        yield from _layer(f"{block}.mlp.fc2", width, (CLIP_FFN,))
        yield from _norm(f"{block}.layer_norm2", width)
    yield from _norm("vision_model.post_layernorm", width)
    yield from _layer("visual_projection", CLIP_OUT, (width,), bias=False)


def pretrained_wav2vec2_weights(s: Sizes) -> Weights:
    """Return wav2vec 2.0 with the parts that only its training needs, which the released file still holds."""
    yield from wav2vec2_weights(s)
    yield "quantizer.codevectors", Weight((1, 640, 128), 0.02)
    yield from _layer("quantizer.weight_proj", 640, (s.speech_conv,))
    yield from _layer("project_hid", 256, (s.speech_channels,))
    yield from _layer("project_q", 256, (256,))


def lora_weights(s: Sizes) -> Weights:
    """Return a LoRA of every linear layer of Wan but the last, with whole differences of all other tensors."""
    for name, weight in wan_weights(s):
        layer, _, kind = name.rpartition(".")
        if kind == "modulation":
            continue
        if is_linear(name, weight) and layer != "head.head":
            rows, columns = weight.shape
            yield f"diffusion_model.{layer}.lora_down.weight", Weight((s.lora_rank, columns), 1 / math.sqrt(columns))
            yield f"diffusion_model.{layer}.lora_up.weight", Weight((rows, s.lora_rank), 0.02)
        else:
            yield f"diffusion_model.{layer}.{'diff_b' if kind == 'bias' else 'diff'}", Weight(weight.shape, 0.002)


def is_linear(name: str, weight: Weight) -> bool:
    """Return whether a tensor is the matrix of a linear layer, and no table of embeddings."""
    return name.endswith(".weight") and len(weight.shape) == 2 and not name.endswith(("shared.weight", "bias.weight"))


# -- layouts


def plain(weights: Weights, dtype: torch.dtype, exact: Callable[[str, Weight], bool] | None = None) -> Tensors:
    """Yield every tensor in `dtype`, except for the `exact` ones in float32."""
    for name, weight in weights:
        chosen = torch.float32 if exact and exact(name, weight) else dtype
        yield Stored(name, weight.shape, chosen, partial(_draw, name, weight, chosen))


def scaled_fp8(weights: Weights, marker: int) -> Tensors:
    """Yield the matrices of linear layers as scaled fp8, all others in fp16. marker: the length of `scaled_fp8`."""
    fp8 = torch.float8_e4m3fn
    yield Stored("scaled_fp8", (marker,), fp8, lambda: torch.zeros(marker, dtype=fp8))
    for name, weight in weights:
        if not is_linear(name, weight):
            yield Stored(name, weight.shape, torch.float16, partial(_draw, name, weight, torch.float16))
            continue
        scale = weight.std * math.sqrt(3.0) / FP8_MAX  # the numbers are even up to there
        yield Stored(name, weight.shape, fp8, partial(_draw, name, weight, fp8, scale))
        value = torch.tensor([scale])
        yield Stored(f"{name.removesuffix('.weight')}.scale_weight", (), torch.float32, lambda value=value: value)


def text_encoder(weights: Weights) -> Tensors:
    """Yield scaled fp8 with the tokenizer's file as one more tensor."""
    yield from scaled_fp8(weights, 0)
    tokenizer = tokenizer_file(prompts())
    yield Stored("spiece_model", (len(tokenizer),), torch.uint8, lambda: torch.frombuffer(tokenizer, dtype=torch.uint8))


def clip_vision(weights: Weights) -> Tensors:
    """Yield fp16, with the numbers of the positions."""
    positions = partial(torch.arange, CLIP_PATCHES)
    yield Stored("vision_model.embeddings.position_ids", (1, CLIP_PATCHES), torch.int64, positions)
    yield from plain(weights, torch.float16)


def _draw(name: str, weight: Weight, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    count = min(math.prod(weight.shape), BLOCK)
    numbers = torch.from_numpy(Weight((count,), weight.std, weight.center).values(name))
    return (numbers.float() / scale).to(dtype) if scale != 1.0 else numbers.to(dtype)


def prompts() -> list[str]:
    """Return the texts of the workflows."""
    graphs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((WORKFLOWS / "api").glob("*.json"))]
    nodes = [node for graph in graphs for node in graph.values()]
    return sorted({node["inputs"]["text"] for node in nodes if node["class_type"] == "CLIPTextEncode"})


def tokenizer_file(sentences: Sequence[str]) -> bytearray:
    """Return a sentencepiece model with umt5's special tokens, made from a few sentences."""
    import sentencepiece

    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=content,
        vocab_size=500,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return bytearray(content.getvalue())


# -- files


def _exact_infinitetalk(name: str, weight: Weight) -> bool:
    return name.startswith("audio_proj.") or len(weight.shape) == 1


def _exact_uni3c(name: str, weight: Weight) -> bool:
    return name.startswith("controlnet_patch_embedding.")


def _infinitetalk(sizes: Sizes) -> Tensors:
    return plain(infinitetalk_weights(sizes), torch.float16, _exact_infinitetalk)


# The folder and name of each file → its tensors.
FILES: dict[str, Callable[[Sizes], Tensors]] = {
    "diffusion_models/wan2.1_i2v_480p_14B_fp8_scaled.safetensors": lambda s: scaled_fp8(wan_weights(s), 2),
    "loras/Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors": lambda s: plain(
        lora_weights(s), torch.bfloat16
    ),
    "model_patches/wan2.1_infiniteTalk_single_fp16.safetensors": _infinitetalk,
    "model_patches/wan2.1_infiniteTalk_multi_fp16.safetensors": _infinitetalk,
    "controlnet/Wan21_Uni3C_controlnet_fp16.safetensors": lambda s: plain(
        uni3c_weights(s), torch.float16, _exact_uni3c
    ),
    "vae/wan_2.1_vae.safetensors": lambda s: plain(vae_weights(s), torch.bfloat16),
    "audio_encoders/wav2vec2-chinese-base_fp16.safetensors": lambda s: plain(
        pretrained_wav2vec2_weights(s), torch.float16
    ),
    "clip_vision/clip_vision_h.safetensors": lambda s: clip_vision(clip_vision_weights(s)),
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors": lambda s: text_encoder(text_encoder_weights(s)),
}


def header_of(tensors: Sequence[Stored]) -> bytes:
    """Return the beginning of a safetensors file with these tensors."""
    entries, end = {}, 0
    for tensor in tensors:
        begin, end = end, end + tensor.bytes
        entries[tensor.name] = {
            "dtype": TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def size_of(tensors: Sequence[Stored]) -> int:
    """Return the length of a file in bytes."""
    return len(header_of(tensors)) + sum(tensor.bytes for tensor in tensors)


def write_released(models: Path, sizes: Sizes) -> list[Path]:
    """Write FILES into ComfyUI's models folder, except for those that are complete; return the paths."""
    written = []
    for file, tensors_of in FILES.items():
        path, tensors = models / file, list(tensors_of(sizes))
        written.append(path)
        if path.exists() and path.stat().st_size == size_of(tensors):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as content:
            content.write(header_of(tensors))
            for tensor in tensors:
                _write_repeated(content, tensor)
    return written


def _write_repeated(content: io.BufferedWriter, tensor: Stored) -> None:
    block, left = tensor.block().view(torch.uint8).numpy(), tensor.bytes
    while left:
        left -= content.write(block[:left])


def main() -> None:
    parser = argparse.ArgumentParser(description="Write random weights in the released shapes.")
    parser.add_argument("models", type=Path, help="ComfyUI's models folder")
    parser.add_argument("--layers", type=int, default=2, help=f"of Wan's {RELEASED_LAYERS}")
    options = parser.parse_args()
    for path in write_released(options.models, with_layers(options.layers)):
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path}")


if __name__ == "__main__":
    main()
