"""A custom node file that counts the live objects in a real ComfyUI, for test_cache.py."""

import gc
import json

import comfy.model_management
import comfy.model_patcher
import torch

OURS = ("infinitetalk_core.", "nodes.host.model.quantized")


def is_ours(module):
    return any(part in type(module).__module__ for part in OURS)


def count():
    gc.collect()
    alive = gc.get_objects()
    modules = [o for o in alive if isinstance(o, torch.nn.Module)]
    patchers = [o for o in alive if isinstance(o, comfy.model_patcher.ModelPatcher)]
    tensors = [o for o in alive if type(o) in (torch.Tensor, torch.nn.Parameter)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.device.type == "cpu"}
    return {
        "modules": sum(is_ours(m) for m in modules),
        "patchers": sum(is_ours(p.model) for p in patchers),
        "tensors": len(tensors),
        "bytes": sum(storages.values()),
        "loaded": len(comfy.model_management.current_loaded_models),
    }


class CountEverything:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"number": ("INT", {"default": 0})}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, number):
        return {"ui": {"text": [json.dumps(count())]}}


NODE_CLASS_MAPPINGS = {"CountEverything": CountEverything}
