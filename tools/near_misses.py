"""Tensor names and shapes of published files that are easily mistaken for each other."""

from __future__ import annotations

from infinitetalk_core.checkpoints.kinds import CheckpointKind

Shapes = dict[str, tuple[int, ...]]
AUDIO_BLOCK = ("blocks.0.audio_cross_attn.q_linear.weight", "blocks.0.norm_x.weight")
VISION = ("img_emb.proj.0.bias", "blocks.0.cross_attn.k_img.weight")


def wan(channels: int, *more: str, dim: int = 5120) -> Shapes:
    """Return a whole Wan model: the tensors common to all of them, and `more`."""
    return {
        "head.modulation": (1, 2, dim),
        "patch_embedding.weight": (dim, channels, 1, 2, 2),
        "blocks.0.self_attn.q.weight": (8, 8),
        "blocks.0.self_attn.norm_q.weight": (dim,),
        "blocks.0.cross_attn.norm_k.weight": (dim,),
    } | dict.fromkeys(more, (1,))


def parts(*names: str) -> Shapes:
    """Return tensors whose shapes do not matter."""
    return dict.fromkeys(names, (2, 2))


# description → (the kind, the tensors)
NEAR_MISSES: dict[str, tuple[CheckpointKind, Shapes]] = {
    "Wan 2.1 I2V 14B": (CheckpointKind.WAN_I2V, wan(36, *VISION)),
    "Wan 2.1 Fun InP 1.3B": (CheckpointKind.WAN_I2V_SMALL, wan(36, *VISION, dim=1536)),
    "Wan 2.2 I2V high or low noise": (CheckpointKind.WAN_I2V_22, wan(36)),
    "Wan 2.1 FLF2V": (CheckpointKind.WAN_FLF2V, wan(36, *VISION, "img_emb.emb_pos")),
    "Wan 2.1 or 2.2 T2V 14B": (CheckpointKind.WAN_T2V, wan(16)),
    "Wan 2.1 T2V 1.3B": (CheckpointKind.WAN_T2V_SMALL, wan(16, dim=1536)),
    "Wan 2.2 TI2V 5B": (CheckpointKind.WAN_5B, wan(48, dim=3072)),
    "Wan 2.1 VACE": (
        CheckpointKind.WAN_VACE,
        wan(16, "vace_blocks.0.after_proj.weight", "vace_patch_embedding.weight"),
    ),
    "VACE module alone": (
        CheckpointKind.WAN_VACE_PART,
        parts("vace_blocks.0.after_proj.weight", "vace_patch_embedding.weight"),
    ),
    "Wan 2.1 Fun Control": (CheckpointKind.WAN_FUN_CONTROL, wan(48, *VISION)),
    "Wan 2.1 Fun Control 1.1": (CheckpointKind.WAN_FUN_CONTROL, wan(48, *VISION, "ref_conv.weight")),
    "Wan 2.1 Fun Camera": (CheckpointKind.WAN_FUN_CAMERA, wan(32, *VISION, "control_adapter.conv.weight")),
    "Wan 2.2 S2V": (CheckpointKind.WAN_S2V, wan(16, "casual_audio_encoder.encoder.final_linear.weight")),
    "HuMo": (CheckpointKind.WAN_HUMO, wan(36, "audio_proj.audio_proj_glob_1.layer.bias")),
    "Wan 2.2 Animate": (CheckpointKind.WAN_ANIMATE, wan(36, *VISION, "face_adapter.fuser_blocks.0.k_norm.weight")),
    "a Wan with other input channels": (CheckpointKind.WAN_OTHER, wan(32)),
    "one of Wan's seven upstream files": (
        CheckpointKind.WAN_SHARD,
        parts("blocks.7.self_attn.norm_q.weight", "blocks.7.cross_attn.norm_k.weight", "blocks.7.ffn.0.weight"),
    ),
    "Wan for diffusers": (CheckpointKind.WAN_DIFFUSERS, parts("condition_embedder.time_embedder.linear_1.weight")),
    "Wan with InfiniteTalk merged in": (
        CheckpointKind.WAN_INFINITETALK,
        wan(36, *VISION, "audio_proj.proj1_vf.weight", *AUDIO_BLOCK),
    ),
    "one of SoulX-FlashTalk's files": (
        CheckpointKind.WAN_INFINITETALK_SHARD,
        parts("blocks.7.self_attn.norm_q.weight", "blocks.7.cross_attn.norm_k.weight", *AUDIO_BLOCK),
    ),
    "InfiniteTalk's quant_models (quanto)": (
        CheckpointKind.QUANTO,
        parts("blocks.0.audio_cross_attn.q_linear.weight._data", "blocks.0.audio_cross_attn.q_linear.weight._scale"),
    ),
    "FantasyTalking": (
        CheckpointKind.FANTASYTALKING,
        parts("proj_model.proj.weight", "proj_model.norm.weight", "blocks.0.cross_attn.processor.k_proj.weight"),
    ),
    "StableAvatar": (
        CheckpointKind.STABLEAVATAR,
        wan(36, *VISION, "vocal_projector.proj.weight", "blocks.0.cross_attn.k_vocal.weight", dim=1536),
    ),
    "EchoMimic V3": (
        CheckpointKind.ECHOMIMIC,
        wan(36, *VISION, "audio2token.proj.weight", "blocks.0.cross_attn.k_audio.weight", dim=1536),
    ),
    "EchoMimic V3 flash": (
        CheckpointKind.ECHOMIMIC,
        wan(36, *VISION, "audio_injection.proj1_vf.weight", "audio_injection.proj1.weight", dim=1536),
    ),
    "OmniAvatar": (
        CheckpointKind.OMNIAVATAR,
        parts("audio_proj.proj.weight", "audio_cond_projs.0.weight", "blocks.0.self_attn.q.lora_A.default.weight"),
    ),
    "LongCat-Video-Avatar": (
        CheckpointKind.LONGCAT_AVATAR,
        parts(
            *("x_embedder.proj.weight", "audio_proj.proj1.weight", "audio_proj.proj1_vf.weight"),
            *("blocks.0.audio_adaLN_modulation.1.weight", "blocks.0.audio_cross_attn.q_linear.weight"),
        ),
    ),
    "SoulX-FlashHead": (
        CheckpointKind.FLASHHEAD,
        wan(32, "audio_emb.proj.0.weight", "audio_proj.proj1.weight", "audio_proj.proj1_vf.weight", dim=1536),
    ),
    "Uni3C": (CheckpointKind.UNI3C, parts("controlnet_patch_embedding.weight", "proj_out.0.weight")),
    "LoRA (lora_down)": (CheckpointKind.LORA, parts("diffusion_model.blocks.0.self_attn.q.lora_down.weight")),
    "LoRA (lora_A)": (CheckpointKind.LORA, parts("blocks.0.self_attn.q.lora_A.default.weight")),
    "LoRA (LoKr)": (CheckpointKind.LORA, parts("diffusion_model.blocks.0.ffn.0.lokr_w1")),
    "LoRA of differences": (
        CheckpointKind.LORA,
        parts("diffusion_model.blocks.0.norm3.diff", "diffusion_model.b.diff_b"),
    ),
    "wav2vec 2.0": (
        CheckpointKind.WAV2VEC,
        parts("wav2vec2.feature_extractor.conv_layers.0.conv.weight", "wav2vec2.encoder.layer_norm.weight"),
    ),
    "wav2vec 2.0 of fairseq": (CheckpointKind.WAV2VEC_FAIRSEQ, parts("feature_extractor.conv_layers.0.0.weight")),
    "WavLM": (
        CheckpointKind.WAVLM,
        parts("feature_extractor.conv_layers.0.conv.weight", "encoder.layers.0.attention.gru_rel_pos_linear.weight"),
    ),
    "HuBERT": (CheckpointKind.HUBERT, parts("hubert.feature_extractor.conv_layers.0.conv.weight")),
    "data2vec": (CheckpointKind.DATA2VEC, parts("data2vec_audio.encoder.pos_conv_embed.layers.0.conv.weight")),
    "Whisper": (CheckpointKind.WHISPER, parts("model.encoder.conv1.weight", "model.encoder.embed_positions.weight")),
    "UMT5 for ComfyUI": (
        CheckpointKind.TEXT_ENCODER,
        parts("shared.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
    ),
    "UMT5 of the Wan repository": (
        CheckpointKind.TEXT_ENCODER,
        parts("token_embedding.weight", "blocks.0.pos_embedding.embedding.weight"),
    ),
    "UMT5 as GGUF": (CheckpointKind.TEXT_ENCODER, parts("token_embd.weight", "enc.blk.0.attn_q.weight")),
    "CLIP text encoder": (CheckpointKind.TEXT_ENCODER, parts("text_model.encoder.layers.0.self_attn.q_proj.weight")),
    "CLIP vision": (CheckpointKind.CLIP_VISION, parts("vision_model.embeddings.class_embedding")),
    "CLIP vision of the Wan repository": (CheckpointKind.CLIP_VISION, parts("visual.patch_embedding.weight")),
    "Wan VAE": (
        CheckpointKind.VAE,
        parts("decoder.middle.0.residual.0.gamma", "encoder.conv1.weight", "decoder.conv1.weight"),
    ),
    "Wan 2.2 VAE": (
        CheckpointKind.VAE,
        parts("decoder.middle.0.residual.0.gamma", "decoder.upsamples.0.upsamples.0.x"),
    ),
    "Stable Diffusion VAE": (CheckpointKind.VAE, parts("decoder.conv_in.weight", "decoder.mid.block_1.conv1.weight")),
    "Flux or Hunyuan": (CheckpointKind.OTHER_DIFFUSION, parts("double_blocks.0.img_attn.qkv.weight")),
    "Stable Diffusion": (CheckpointKind.OTHER_DIFFUSION, parts("model.diffusion_model.input_blocks.0.0.weight")),
    "a language model": (
        CheckpointKind.LANGUAGE_MODEL,
        parts("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"),
    ),
    "something else": (CheckpointKind.UNKNOWN, parts("something")),
}
