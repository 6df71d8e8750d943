"""A custom node file with nodes like those of other packs. Tests put it into custom_nodes; see test_same_job.py.

A file `pretend.json` beside it, {"comfyui": "9.9"}, changes the version that this ComfyUI reports.
"""

import json
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import comfyui_version
import folder_paths
import numpy as np
import torch

HERE = Path(__file__).parent
if (HERE / "pretend.json").exists():
    comfyui_version.__version__ = json.loads((HERE / "pretend.json").read_text())["comfyui"]


class Anything(str):
    """A type that matches every other type."""

    def __ne__(self, other):
        return False


ANY = Anything("*")


class ForeignPrompts:
    """Returns several texts as a list."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"texts": ("STRING", {"multiline": True})}}

    RETURN_TYPES = ("STRING",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, texts):
        return (texts.split("\n"),)


class ForeignConditioning:
    """Returns a conditioning of a text. `random`: a different one at each run, without IS_CHANGED."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"multiline": True}), "random": ("BOOLEAN", {"default": False})}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, text, random):
        seed = time.time_ns() % 2**31 if random else zlib.crc32(text.encode())
        return ([[torch.randn(1, 512, 4096, generator=torch.Generator().manual_seed(seed)), {}]],)


class ForeignCaption(ForeignConditioning):
    """Like ForeignConditioning, with an IS_CHANGED that changes at each run."""

    @classmethod
    def IS_CHANGED(cls, text, random):
        return float("nan")


class ForeignModel:
    """Returns a MODEL that cannot be fingerprinted: it may differ at each run."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    @classmethod
    def IS_CHANGED(cls, model):
        return float("nan")

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, model):
        return (model.clone(),)


class ForeignStrengths:
    """Returns a list of MODELs with several strengths of a LoRA."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "lora": (folder_paths.get_filename_list("loras"),)}}

    RETURN_TYPES = ("MODEL",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, model, lora):
        import nodes

        loader = nodes.LoraLoaderModelOnly()
        return ([loader.load_lora_model_only(model, lora, strength)[0] for strength in (0.5, 1.0)],)


class ForeignReplace:
    """Passes `value` on after replacing one file of the input folder by another."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (ANY,), "new": ("STRING",), "old": ("STRING",), "in_place": ("BOOLEAN",)}}

    RETURN_TYPES = (ANY,)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, value, new, old, in_place):
        folder = Path(folder_paths.get_input_directory())
        if in_place:
            shutil.copyfile(folder / new, folder / old)
        else:
            shutil.copyfile(folder / new, folder / "scratch")
            (folder / "scratch").replace(folder / old)
        return (value,)


class Lazy(Mapping):
    """A mapping that is no dict, as VideoHelperSuite hands over for a sound."""

    def __init__(self, values):
        self._values = values

    def __getitem__(self, key):
        return self._values[key]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)


VALUES = {
    "nothing": None,
    "numpy 7": np.int64(7),
    "NaN": float("nan"),
    "1e30": 1e30,
    "minus one": -1,
    "list": ["1", 0],
    "text": "soon",
}


class ForeignValue:
    """Returns one of VALUES, as a muted switch or a mathematics node does."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (list(VALUES),)}}

    RETURN_TYPES = (ANY,)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, value):
        return (VALUES[value],)


class ForeignSound:
    """Returns the same sound in another form."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"audio": ("AUDIO",), "form": (["mapping", "numpy", "list", "rate"],)}}

    RETURN_TYPES = ("AUDIO",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, audio, form):
        waveform, rate = audio["waveform"], audio["sample_rate"]
        forms = {
            "mapping": lambda: Lazy(audio),
            "numpy": lambda: {"waveform": waveform.numpy(), "sample_rate": rate},
            "list": lambda: {"waveform": [waveform[0]], "sample_rate": rate},
            "rate": lambda: {"waveform": waveform[0], "sample_rate": np.float64(rate)},
        }
        return (forms[form](),)


CLASSES = (
    ForeignValue,
    ForeignSound,
    ForeignPrompts,
    ForeignConditioning,
    ForeignCaption,
    ForeignModel,
    ForeignStrengths,
    ForeignReplace,
)
NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in CLASSES}
