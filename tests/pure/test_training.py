"""Training: the loss is the paper's, what is held or dropped is, and a resumed run is the undisturbed one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from infinitetalk_core.chunks.reference import Policy
from infinitetalk_core.sampling.schedule import shifted_sigmas

pytest.importorskip("cv2", reason="training needs opencv-python-headless")
pytest.importorskip("espeakng_loader", reason="training needs espeakng_loader")

from infinitetalk_core.model.infinitetalk import InfiniteTalkModel
from training.dataset import Samples
from training.drawing import DEFAULT_POLICIES
from training.flow_matching import Batch, flow_matching_loss, shifted_levels
from training.small_models import SmallSizes, new_model
from training.stages import model_trainer
from training.trainer import TrainingConfig, draw_batch

TINY = SmallSizes(dim=128, ffn_dim=64, layers=1, audio_width=4, hidden=8, tokens=2, token_dim=8)
FRAMES = 9  # three latent frames


def random_samples(count: int = 6) -> Samples:
    """Noise in the shapes of samples."""
    draw = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    return Samples(
        target=noise(count, 16, 3, 4, 4),
        drifted=noise(count, 16, 3, 4, 4) + 100,
        references=noise(count, len(DEFAULT_POLICIES), 16, 3, 4, 4),
        speech=noise(count, FRAMES, 5, 2, 2),
        mouth=torch.zeros(count, 3, 4, 4),
        lively=torch.tensor([0.0, 1.0] * (count // 2)),
        guide=torch.zeros(count, 0),
    )


def tiny_config(**changes) -> TrainingConfig:
    settings = {"steps": 8, "batch": 2, "warmup": 2, "log_every": 1, "save_every": 100, "low_precision": False}
    return TrainingConfig(**{**settings, **changes})


def drawn(config: TrainingConfig, samples: Samples, seed: int = 0) -> Batch:
    """Return the batch of a seed."""
    return draw_batch(config, samples, torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed))


class KnowsTheAnswer:
    """Stands for a backbone that predicts the velocity exactly, except in the context latents."""

    def __init__(self, velocity: torch.Tensor, held: int):
        self.velocity, self.held = velocity, held

    def __call__(self, z, timesteps, text, picture, adapter, speech, *options):
        assert len(speech) == len(z)
        answer = self.velocity.clone()
        answer[:, :, : self.held] = 1e6
        return answer


def make_batch(held: int = 2) -> Batch:
    samples = random_samples()
    return Batch(
        target=samples.target[:2],
        context=samples.target[:2, :, :held],
        reference=samples.references[:2, 0],
        audio_windows=samples.speech[:2],
        text=torch.zeros(2, 2, 4096),
        weight=torch.ones(2, 1, 3, 4, 4),
    )


def test_the_loss_is_zero_for_the_true_velocity_and_ignores_the_context():
    batch, noise = make_batch(), torch.randn(2, 16, 3, 4, 4)
    perfect = InfiniteTalkModel(KnowsTheAnswer(noise - batch.target, held=2), new_model(TINY).adapter)  # type: ignore[arg-type]
    assert flow_matching_loss(perfect, batch, torch.tensor([0.3, 0.8]), noise).item() == 0


def test_a_wrong_velocity_costs_its_square():
    batch, noise = make_batch(), torch.randn(2, 16, 3, 4, 4)
    off_by_two = InfiniteTalkModel(KnowsTheAnswer(noise - batch.target + 2, held=2), new_model(TINY).adapter)  # type: ignore[arg-type]
    assert flow_matching_loss(off_by_two, batch, torch.tensor([0.3, 0.8]), noise).item() == pytest.approx(4)


def test_the_model_sees_clean_context_and_the_straight_line_behind_it():
    batch, noise, sigma = make_batch(held=1), torch.randn(2, 16, 3, 4, 4), torch.tensor([0.25, 1.0])
    seen = {}

    def look(z, timesteps, *_args, **_options):
        seen.update(z=z, timesteps=timesteps)
        return torch.zeros(2, 16, 3, 4, 4)

    flow_matching_loss(InfiniteTalkModel(look, new_model(TINY).adapter), batch, sigma, noise)  # type: ignore[arg-type]
    torch.testing.assert_close(seen["timesteps"], torch.tensor([250.0, 1000.0]))
    torch.testing.assert_close(seen["z"][:, :16, :1], batch.target[:, :, :1])
    torch.testing.assert_close(seen["z"][0, :16, 1:], 0.75 * batch.target[0, :, 1:] + 0.25 * noise[0, :, 1:])
    torch.testing.assert_close(seen["z"][1, :16, 1:], noise[1, :, 1:])
    assert seen["z"].shape[1] == 36
    assert seen["z"][:, 16:20, 0].eq(1).all() and seen["z"][:, 16:20, 1:].eq(0).all()
    torch.testing.assert_close(seen["z"][:, 20:], batch.reference)


def test_noise_levels_are_those_of_the_sampling_schedule():
    # The schedule ends its steps at 1 of 1000 and appends 0.
    uniform = torch.cat([torch.linspace(1000, 1, 5), torch.zeros(1)]) / 1000
    torch.testing.assert_close(shifted_levels(uniform, 3.0), shifted_sigmas(5, 3.0))


def test_what_is_dropped_is_zero_and_only_its_share():
    config = tiny_config(batch=200, drop_speech=0.25, drop_text=0.5)
    batch = drawn(config, random_samples())
    deaf = batch.audio_windows.flatten(1).eq(0).all(dim=1).float().mean().item()
    without_text = batch.text.flatten(1).eq(0).all(dim=1).float().mean().item()
    assert deaf == pytest.approx(0.25, abs=0.1)
    assert without_text == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("policy", DEFAULT_POLICIES)
def test_a_policy_takes_its_own_references(policy):
    samples = random_samples()
    config = tiny_config(policies={policy: 1.0}, context_latents={3: 1.0})
    batch = drawn(config, samples, seed=1)
    own = samples.references_of(policy)
    assert all(any(torch.equal(r, o) for o in own) for r in batch.reference)
    assert batch.context.shape[2] == 3
    assert Policy.PREVIOUS_OUTPUT not in samples.policies


def test_the_asked_share_of_contexts_has_drifted():
    config = tiny_config(batch=200, drifted_share=0.3, context_noise=0.0, context_latents={2: 1.0})
    batch = drawn(config, random_samples(), seed=2)
    drifted = (batch.context.flatten(1).mean(dim=1) > 50).float().mean().item()
    assert drifted == pytest.approx(0.3, abs=0.1)


def test_training_lowers_the_loss(tmp_path):
    config = tiny_config(steps=60, learning_rate=1e-2, context_latents={1: 1.0})
    trainer = model_trainer(config, new_model(TINY), random_samples(2), tmp_path)
    losses = []
    trainer.run(lambda line: losses.append(float(line.split("loss ")[1].split(",")[0])))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    samples = random_samples()
    whole = model_trainer(tiny_config(), new_model(TINY), samples, tmp_path / "whole")
    whole.run()
    model_trainer(tiny_config(), new_model(TINY), samples, tmp_path / "halves").run(until=4)
    second = model_trainer(tiny_config(), new_model(TINY, seed=9), samples, tmp_path / "halves")
    assert second.step == 4
    second.run()
    for name, weight in whole.modules.state_dict().items():
        assert torch.equal(weight, second.modules.state_dict()[name]), name
    for name, weight in whole.averaged_weights().items():
        assert torch.equal(weight, second.averaged_weights()[name]), name


def test_only_what_is_asked_for_is_trained(tmp_path):
    model = new_model(TINY)
    model.backbone.requires_grad_(False)
    before = {n: w.clone() for n, w in model.backbone.state_dict().items()}
    # The head of a new model is zero, through which nothing would be learned.
    torch.nn.init.normal_(model.backbone.head.head.weight)
    before["head.head.weight"] = model.backbone.head.head.weight.detach().clone()
    audio = {n: w.clone() for n, w in model.adapter.state_dict().items()}
    trainer = model_trainer(tiny_config(context_latents={1: 1.0}), model, random_samples(), tmp_path)
    trainer.run()
    assert all(torch.equal(w, before[n]) for n, w in model.backbone.state_dict().items())
    assert any(not torch.equal(w, audio[n]) for n, w in model.adapter.state_dict().items())
    assert all(name.startswith("1.") for name in trainer.averaged)


def test_recomputed_activations_give_the_same_gradients():
    batch, noise, sigma = make_batch(), torch.randn(2, 16, 3, 4, 4), torch.tensor([0.3, 0.8])
    gradients = []
    for recompute in (False, True):
        model = replace(new_model(TINY), recompute=recompute)
        torch.nn.init.ones_(model.backbone.head.head.weight)
        flow_matching_loss(model, batch, sigma, noise).backward()
        gradients.append(model.backbone.blocks[0].ffn[0].weight.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1])
