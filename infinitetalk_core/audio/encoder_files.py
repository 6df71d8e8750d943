"""Loading of speech encoder files into a SpeechEncoder.

Nothing is read over the network, and no code in a file is run: pickles are read with weights_only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.parametrize import remove_parametrizations

from ..checkpoints.header import read_header, refuse_failed_download, without_prefix
from ..checkpoints.kinds import WANT_WAV2VEC, check_kind
from ..checkpoints.opened import opened, shown
from ..checkpoints.pytorch_file import open_pytorch
from ..checkpoints.tensor_data import read_tensors
from ..checkpoints.tensor_shapes import TensorShapes
from ..checkpoints.weights_file import refuse_unless_finite
from ..errors import InputError, RunError
from ..fingerprint import key_of
from .wav2vec import SpeechEncoder

if TYPE_CHECKING:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

ADVICE = WANT_WAV2VEC.advice
SETTINGS_BYTES = 1_000_000  # of config.json, which has a few thousand
WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
POSITION = "encoder.pos_conv_embed.conv."
# The two naming schemes of weight norm for magnitude and direction.
WEIGHT_NORM = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


@dataclass(frozen=True)
class TensorFile:
    """Names and shapes of the tensors in a weights file, with `prefix` removed from the names.

    load: reads tensors by their names in the file and returns them with a fingerprint of what was read; the file is not
    left memory-mapped.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    load: Callable[[Collection[str]], tuple[dict[str, Tensor], str]]
    prefix: str = ""

    @cached_property
    def tensors(self) -> TensorShapes:
        """The shapes, for the sizes of the network."""
        return TensorShapes(self.shapes, self.path.name)

    @property
    def names(self) -> frozenset[str]:
        """Names of the tensors."""
        return frozenset(self.shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one tensor. Raises InputError if it does not exist."""
        if name not in self.shapes:
            raise InputError(f"{self.path} lacks the tensor {name}, so it is incomplete; download it again")
        return self.shapes[name]

    def read(self, names: Collection[str]) -> tuple[dict[str, Tensor], str]:
        """Read these tensors as float32, with the fingerprint of their stored data.

        Raises InputError for missing tensors, dtypes other than floating point and numbers that are not finite.
        """
        for name in names:
            self.shape(name)
        found, fingerprint = self.load([self.prefix + name for name in names])
        tensors = {}
        for name in names:
            stored = found[self.prefix + name]
            if stored.dtype not in FLOATS:
                raise InputError(
                    f"{self.path} stores {name} as {stored.dtype}, but a speech encoder is read as float32, "
                    "float16 or bfloat16; get the unquantized file"
                )
            refuse_unless_finite(stored, name, self.path)
            tensors[name] = stored.float()
        return tensors, fingerprint


def load_speech_encoder(path: Path) -> SpeechEncoder:
    """Load the speech encoder in `path` as float32 on the CPU, with the fingerprint of everything read for it.

    path: a folder of Hugging Face (config.json, preprocessor_config.json, weights), or a weights file alone
    (safetensors, or a pickle of nothing but tensors). Sizes come from the tensors; config.json adds what
    tensors do not show (heads, strides, epsilon, order of norms). Without it these are the standard wav2vec
    2.0's.
    """
    weights = _weights_file(path)
    folder = path if path.is_dir() else weights.parent
    file = _wav2vec_tensors(_open(weights))
    # Beside a file with another name, a config.json may belong to another model.
    described = path.is_dir() or weights.name in WEIGHT_NAMES
    config = _json(folder / "config.json") if described else {}
    processor = _json(folder / "preprocessor_config.json") if described else {}
    settings = read_settings(file, config)
    # Published models whose first norm is a GroupNorm (base) take the waveform unchanged, the others standardized.
    normalize = _switch(processor, "do_normalize", settings.feat_extract_norm == "layer", file.path)
    network, read = _network(settings, file)
    fingerprint = key_of({"weights": read, "config": config, "preprocessor": processor})
    return SpeechEncoder(network, normalize_input=normalize, fingerprint=fingerprint)


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise InputError(f"there is no speech encoder at {path}; {ADVICE}")
    if not path.is_dir():
        raise InputError(f"{path} is neither a file nor a folder; {ADVICE}")
    for name in WEIGHT_NAMES:
        if (path / name).is_file():
            return path / name
    if pieces := sorted(path.glob("*.index.json")):
        raise InputError(f"{path} holds an encoder that is split into several files ({pieces[0].name}); {ADVICE}")
    single = sorted(path.glob("*.safetensors"))
    if len(single) == 1:
        return single[0]
    raise InputError(f"the folder {path} has none of {', '.join(WEIGHT_NAMES)}; {ADVICE}")


def _json(path: Path) -> dict[str, Any]:
    """Return the settings of a JSON file, without those that are null; none without a file.

    Raises InputError for anything that is no such file.
    """
    if not path.exists() and not path.is_symlink():
        return {}
    with opened(path) as file:
        content = file.read(SETTINGS_BYTES + 1)
    try:
        found = json.loads(content.decode("utf-8-sig")) if len(content) <= SETTINGS_BYTES else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON; download it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} does not hold the settings of a speech encoder; download it again")
    return {name: value for name, value in found.items() if value is not None}


def _open(path: Path) -> TensorFile:
    """Open a weights file; its first bytes, not its name, decide the format. Raises InputError for unknown formats."""
    with opened(path) as stream:
        head = stream.read(64)
    if head[8:9] == b"{":
        return _open_safetensors(path)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        found = open_pytorch(path)
        return TensorFile(path, found.shapes, found.load)
    if head[:4] == b"GGUF":
        check_kind(path.name, read_header(path).shapes, WANT_WAV2VEC)
        raise InputError(f"{path} is a GGUF file, which is not read as a speech encoder; {ADVICE}")
    refuse_failed_download(path, head)
    raise InputError(
        f"{path.name} is neither a safetensors file nor a PyTorch file (it begins with {head[:8]!r}); {ADVICE}"
    )


def _open_safetensors(path: Path) -> TensorFile:
    header = read_header(path)
    check_kind(path.name, header.shapes, WANT_WAV2VEC)
    ours = {theirs: name for name, theirs in header.names.items()}

    def load(names: Collection[str]) -> tuple[dict[str, Tensor], str]:
        found, fingerprint = read_tensors(path, header, [ours[name] for name in names])
        return {name: found[ours[name]] for name in names}, fingerprint

    return TensorFile(path, {theirs: header.shapes[name] for theirs, name in ours.items()}, load)


def _wav2vec_tensors(file: TensorFile) -> TensorFile:
    """Return the file with the prefix `wav2vec2.` removed.

    Raises InputError, naming the file's kind, if it is another.
    """
    check_kind(file.path.name, without_prefix(file.shapes), WANT_WAV2VEC)
    prefix = "wav2vec2." if any(name.startswith("wav2vec2.") for name in file.names) else ""
    shapes = {name.removeprefix(prefix): shape for name, shape in file.shapes.items() if name.startswith(prefix)}
    needed = ("feature_extractor.conv_layers.0.conv.weight", "encoder.layers.0.attention.q_proj.weight")
    if missing := [name for name in needed if name not in shapes]:
        raise InputError(f"{file.path} lacks the tensor {missing[0]}, so it is incomplete; {ADVICE}")
    return replace(file, shapes=shapes, prefix=prefix)


def _position_names(file: TensorFile) -> tuple[str, ...]:
    """Return the names under which the positional convolution's weight (channels, channels / groups, kernel) is stored:
    one tensor, or weight norm's magnitude and direction."""
    if POSITION + "weight" in file.names:
        return (POSITION + "weight",)
    for magnitude, direction in WEIGHT_NORM:
        if POSITION + direction in file.names:
            return POSITION + magnitude, POSITION + direction
    raise InputError(f"{file.path} lacks the tensor {POSITION}weight_v, so it is incomplete; download it again")


def _position_weight(stored: Sequence[Tensor], path: Path) -> Tensor:
    """Compute the weight from the tensors of `_position_names`, with weight norm multiplied out.

    Raises InputError where a direction is nothing but zeros.
    """
    if len(stored) == 1:
        return stored[0]
    g, v = stored
    weight = v * (g / v.norm(dim=(0, 1), keepdim=True))
    refuse_unless_finite(weight, f"{POSITION}weight", path)
    return weight


def wav2vec2() -> tuple[type[Wav2Vec2Config], type[Wav2Vec2Model]]:
    """Import transformers' classes on first use, since that takes longer than importing all of this package.

    Raises RunError where transformers cannot be imported or does not work with this PyTorch.
    """
    try:
        from transformers import Wav2Vec2Config, Wav2Vec2Model, __version__
        from transformers.utils import is_torch_available
    except (ImportError, RuntimeError) as error:  # RuntimeError: of transformers, for an error inside it
        raise RunError(
            f"the Python package transformers, which has the layers of the speech encoder, cannot be imported "
            f"({shown(error)}); install it again: pip install -U transformers"
        ) from error
    if not is_torch_available():
        raise RunError(
            f"the Python package transformers {__version__}, which has the layers of the speech encoder, does not work "
            f"with PyTorch {torch.__version__}; update PyTorch, or install an older one: pip install 'transformers<5'"
        )
    return Wav2Vec2Config, Wav2Vec2Model


def inference_config(**sizes: Any) -> Wav2Vec2Config:
    """Return a config for inference with these sizes: no dropout, no masking, SDPA (no (F, F) matrix in memory)."""
    run_only: dict[str, Any] = {
        "hidden_dropout": 0.0,
        "activation_dropout": 0.0,
        "attention_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "layerdrop": 0.0,
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        "attn_implementation": "sdpa",
    }
    return wav2vec2()[0](**sizes, **run_only)


def read_settings(file: TensorFile, config: dict[str, Any]) -> Wav2Vec2Config:
    """Return the network's config: all sizes from the tensors, the rest from `config` (config.json, may be empty).

    Raises InputError if the two do not fit each other, or if no network has such sizes.
    """
    _check_config(file, config)
    tensors, layer = file.tensors, "feature_extractor.conv_layers."
    convs = [tensors.sizes(f"{layer}{i}.conv.weight", 3) for i in range(tensors.blocks(layer, "conv.weight"))]
    channels, position_channels, position_kernel = tensors.sizes(_position_names(file)[-1], 3)
    by_layer = f"{layer}1.layer_norm.weight" in tensors
    strides = config.get("conv_stride", [5, *[2] * (len(convs) - 1)])
    heads = config.get("num_attention_heads", max(1, channels // 64))
    if not _fits(strides, heads, convs, channels) or channels % position_channels:
        raise InputError(
            f"{file.path} and its config.json do not belong together: {len(convs)} convolutions and "
            f"{channels} channels in the file, strides {shown(strides)} and {shown(heads)} heads in the settings; "
            "download both again"
        )
    return inference_config(
        hidden_size=channels,
        num_hidden_layers=tensors.blocks("encoder.layers.", "attention.q_proj.weight"),
        num_attention_heads=heads,
        intermediate_size=tensors.sizes("encoder.layers.0.feed_forward.intermediate_dense.weight", 2)[0],
        conv_dim=tuple(shape[0] for shape in convs),
        conv_kernel=tuple(shape[2] for shape in convs),
        conv_stride=tuple(strides),
        conv_bias=f"{layer}0.conv.bias" in tensors,
        feat_extract_norm="layer" if by_layer else "group",
        do_stable_layer_norm=_switch(config, "do_stable_layer_norm", by_layer, file.path),
        num_conv_pos_embeddings=position_kernel,
        num_conv_pos_embedding_groups=channels // position_channels,
        layer_norm_eps=_epsilon(config, file.path),
    )


def _fits(strides: Any, heads: Any, convs: Sequence[tuple[int, ...]], channels: int) -> bool:
    """Return whether strides and heads are those of such a network; a stride beyond its kernel would skip sound."""
    if type(heads) is not int or not 0 < heads <= channels or channels % heads:
        return False
    if not isinstance(strides, list | tuple) or len(strides) != len(convs):
        return False
    return all(
        type(stride) is int and 0 < stride <= kernel for stride, (_, _, kernel) in zip(strides, convs, strict=True)
    )


def _switch(config: dict[str, Any], name: str, default: bool, path: Path) -> bool:
    """Return a setting that is true or false. Raises InputError for anything else."""
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{name} in the settings of {path} must be true or false, got {shown(value)}; {ADVICE}")
    return value


def _epsilon(config: dict[str, Any], path: Path) -> float:
    """Return layer_norm_eps. Raises InputError for anything but a small number above 0."""
    value = config.get("layer_norm_eps", 1e-5)
    if type(value) not in (int, float) or not 0 < value < 1:
        raise InputError(
            f"layer_norm_eps in the settings of {path} must be between 0 and 1, got {shown(value)}; {ADVICE}"
        )
    return float(value)


def _check_config(file: TensorFile, config: dict[str, Any]) -> None:
    kind = config.get("model_type", "wav2vec2")
    if kind != "wav2vec2":
        raise InputError(f"{file.path} is a model of the kind {shown(kind)!r} by its config.json; {ADVICE}")
    for name in ("hidden_act", "feat_extract_activation"):
        if config.get(name, "gelu") != "gelu":
            raise InputError(
                f"{file.path} uses the activation {shown(config[name])!r} ({name} in config.json), only 'gelu' "
                f"is known; {ADVICE}"
            )


def _network(settings: Wav2Vec2Config, file: TensorFile) -> tuple[Wav2Vec2Model, str]:
    """Build the network with the file's weights. Returns it with their fingerprint.

    Raises InputError if a tensor is missing or has another shape.
    """
    with torch.device("meta"):  # allocates no memory: the weights come from the file
        network = wav2vec2()[1](settings)
        # Weight norm is needed for training only; without it the weight has one name for every file layout.
        remove_parametrizations(network.encoder.pos_conv_embed.conv, "weight")
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    del expected[POSITION + "weight"]
    for name, shape in expected.items():
        if file.shape(name) != shape:
            raise InputError(
                f"{file.path}: the tensor {name} has shape {file.shape(name)} where the others ask for {shape}; "
                "download the file again"
            )
    position = _position_names(file)
    channels = settings.hidden_size // settings.num_conv_pos_embedding_groups
    direction = (settings.hidden_size, channels, settings.num_conv_pos_embeddings)
    if file.shape(position[0]) not in (direction, (1, 1, settings.num_conv_pos_embeddings)):
        raise InputError(
            f"{file.path}: the tensor {position[0]} has shape {file.shape(position[0])}; download the file again"
        )
    weights, fingerprint = file.read([*expected, *position])
    weights[POSITION + "weight"] = _position_weight([weights.pop(name) for name in position], file.path)
    network.load_state_dict(weights, assign=True)
    return network, fingerprint
