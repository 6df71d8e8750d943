"""Golden case `clip_vision`, its pixels: CLIP vision is given what the reference gives it."""

from __future__ import annotations

from infinitetalk_core.clip_image import clip_pixels


def test_clip_pixels_are_the_references(golden):
    case = golden("clip_vision")
    size = case.config["vit_config"]["image_size"]
    mean, std = tuple(case.config["mean"]), tuple(case.config["std"])
    names = sorted(name.split("/")[1] for name in case.tensors if name.endswith("image_u8"))
    assert names
    for name in names:
        got = clip_pixels(case[f"inputs/{name}/image_u8"] / 255, size, mean, std)
        error = (got - case[f"outputs/{name}/pixel_values"]).abs().max().item()
        assert error <= case.tolerance("pixel_values"), f"picture {name}: {error:.3g}"
