"""ComfyUI's conditioning of a chunk: a text with the chunk's reference latents, mask and CLIP tokens.

One text serves all chunks; backend.py passes it.
"""

from __future__ import annotations

from typing import Any

import node_helpers

from ....infinitetalk_core.chunks.conditioning import ChunkConditioning


def chunk_conditioning(conditioning: list, chunk: ChunkConditioning) -> list:
    """Return `conditioning` with the chunk's reference latents (z2 of the paper), mask m and CLIP tokens.

    Uses the names that ComfyUI's Wan models read.
    """
    values: dict[str, Any] = {
        "concat_latent_image": chunk.reference,
        # ComfyUI's mask is 1 where frames are generated; m is 1 where they are given.
        "concat_mask": 1 - chunk.mask,
    }
    if chunk.clip is not None:
        values["clip_vision_output"] = chunk.clip
    return node_helpers.conditioning_set_values(conditioning, values)
