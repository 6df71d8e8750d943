"""Whole runs over several chunks equal the reference's: latents, context, masks and frames of every variant."""

from __future__ import annotations

import torch
from reference_models import LinearCodec, ReferenceModels, boxes, build_dit
from torch import Tensor

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.audio.voice import SAMPLE_RATE_HZ
from infinitetalk_core.chunks.conditioning import reference_mask, reference_video
from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.job import ColorHold, Job, Reference, Sampling
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.chunks.sizes import fit_to
from infinitetalk_core.rate import FRAMES_PER_SECOND
from infinitetalk_core.sampling.guidance import Apg, Guidance
from infinitetalk_core.sampling.schedule import shifted_sigmas
from infinitetalk_core.speech import Speech
from infinitetalk_core.video.source import PictureBatch

SAMPLES_A_FRAME = SAMPLE_RATE_HZ // FRAMES_PER_SECOND


def run(case, row: dict) -> tuple[ReferenceModels, list, dict[str, Tensor]]:
    """The product's own loop on the case's inputs."""
    name, inputs = row["name"], case.under("inputs")
    speakers = len(row["audio_lens"])
    voices = tuple(voice(inputs, name, number, speakers) for number in range(1, speakers + 1))
    # Both programs have the same defaults.
    apg = Apg(norm_threshold=row.get("apg_norm_threshold", Apg.norm_threshold)) if row.get("use_apg") else None
    backbone, adapter = build_dit(case.config["model_config"], case.weights)
    models = ReferenceModels(
        backbone,
        adapter,
        LinearCodec.of(case.under("inputs/mock_vae")),
        inputs["mock_clip/P"],
        inputs["mock_clip/W"],
        inputs["context"],
        inputs["context_null"],
        shifted_sigmas(row["steps"], row["shift"]),
        Guidance(row["text_guide_scale"], row["audio_guide_scale"], apg),
    )

    def noise(seed: int, shape: tuple[int, ...]) -> Tensor:
        """The seed of a chunk is its index, since the job's is 0."""
        own = f"{name}/noise/chunk{seed}/initial"
        return inputs.get(own, inputs.get(f"noise/chunk{seed}/initial"))[None].reshape(shape)

    video = row["source"] == "video"
    pictures = inputs["source_video"] if video else inputs["source_image"][None]
    height, width = row["bucket_hw"]
    source = PictureBatch(pictures.float() / 255, fps=FRAMES_PER_SECOND)
    total = row["frames"][1]
    sound = Sound(torch.zeros(1, total * SAMPLES_A_FRAME), SAMPLE_RATE_HZ)
    settings = ReferenceSettings(Policy.CHUNK_START if video else Policy.STILL)
    job = Job(
        speech=Speech(voices, sound, boxes(row)),
        reference=Reference(source, height, width, settings),
        sampling=Sampling(
            chunk_frames=row["frame_num"],
            context_frames=row["motion_frame"],
            # Frame by frame and without what the reference lacks.
            color=ColorHold(row["color_correction_strength"], to_first=True, over=1),
            seam_fade=0,
        ),
    )
    return models, list(dub(job, models, noise=noise)), case.under(f"outputs/{name}")


def voice(inputs: dict[str, Tensor], variant: str, number: int, speakers: int) -> Tensor:
    """The speech features of a speaker: the variant's own, or those that all variants of as many speakers share."""
    names = [f"audio_emb_{number}_two"] * (speakers == 2) + [f"audio_emb_{number}"]
    return next(inputs[n] for n in [f"{variant}/{n}" for n in names] + names if n in inputs)


@torch.inference_mode()
def test_run_equals_the_reference(golden, assert_close, variant):
    case, row = golden("sampler"), variant
    models, finished, want = run(case, row)
    assert len(models.seen) == row["n_chunks"]
    y_limit = golden("masks").tolerance("y")
    latent_limit, frame_limit = case.tolerance("latents"), case.tolerance("frames")
    for conditioning, x0 in models.seen:
        at = f"chunk{conditioning.chunk.index}"
        assert_close(x0[0], want[f"{at}/x0"], latent_limit, f"{at} x0")
        assert_close(conditioning.context[0], want[f"{at}/motion_latent"], latent_limit, f"{at} context")
        if f"{at}/audio" in want:
            assert torch.equal(conditioning.audio_windows, want[f"{at}/audio"])
        if f"{at}/y" in want:
            y = torch.cat([conditioning.mask, conditioning.reference], dim=1)
            torch.testing.assert_close(y, want[f"{at}/y"], atol=y_limit, rtol=0)
    frames = torch.cat([f.frames for f in finished]).permute(3, 0, 1, 2) * 2 - 1
    assert list(frames.shape) == row["frames"]
    stills = {"frame_first": 0, "frame_last": -1} | {
        k: int(k.split("_")[1]) for k in want if k.startswith("frame_") and k.split("_")[1].isdigit()
    }
    compared = 0
    if "frames" in want:
        torch.testing.assert_close(frames, want["frames"], atol=frame_limit, rtol=0)
        compared += 1
    for key, index in stills.items():
        if key in want:
            torch.testing.assert_close(frames[:, index], want[key], atol=frame_limit, rtol=0)
            compared += 1
    assert compared
    torch.testing.assert_close(frames.mean(dim=(2, 3)), want["frames_channel_mean"], atol=frame_limit, rtol=0)


@torch.inference_mode()
def test_z2_and_m_equal_the_reference(golden):
    case = golden("masks")
    codec = LinearCodec.of(case.under("inputs/mock_vae"))
    limit = case.tolerance("y")
    for row in case.config["frames"]:
        want = case.under(f"outputs/frame{row['frame_num']}")
        _, _, latent_frames, height, width = row["y_shape"]
        picture = fit_to(case["inputs/source_image"].float() / 255, 8 * height, 8 * width)
        z2 = codec.encode(reference_video(picture, row["frame_num"]))
        mask = reference_mask(latent_frames, height, width)
        assert torch.equal(mask, want["msk"])
        torch.testing.assert_close(torch.cat([mask, z2], dim=1), want["y"], atol=limit, rtol=0)
