"""The table of benchmarks/paper.py: its statistics are right, and a row is really measured, saved and shown."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("cv2", reason="drawn people need opencv-python-headless")
pytest.importorskip("espeakng_loader", reason="synthetic speech needs espeakng_loader")
pytest.importorskip("matplotlib", reason="plots need matplotlib")

from benchmarks import paper_run, paper_variants
from benchmarks.paper_conditions import QUICK, SHIFT, STRATEGIES, Condition, Scale, experiments
from benchmarks.paper_report import BEGIN, END, put_between, write_report
from benchmarks.paper_rows import Row, append_row, paired, read_rows, spread, values_of
from benchmarks.paper_variants import FineTuning, variant_config
from benchmarks.paper_videos import (
    make_row,
    make_scene,
    mouth_numbers,
    partial_correlation,
    psnr,
    seam_among_latents,
    side_areas,
)
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.reference import Policy
from infinitetalk_core.model.vae import WanVae, save_vae
from training import small_models
from training.small_models import SmallSizes, new_model, save_model
from training.speech_pretraining import ProbedEncoder, SpeechPretraining, write_encoder
from training.trainer import TrainingConfig

SEED = 1_000_000
SPEECH_ENCODER = SpeechPretraining(layers=2, channels=16, ffn=32, convolution=8)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models that never learned anything."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = SmallSizes(dim=128, ffn_dim=64, layers=1, audio_width=32, hidden=8, tokens=2, token_dim=8)
    save_model(new_model(sizes), folder)
    (folder / small_models.VAE).parent.mkdir()
    save_vae(WanVae(4), folder / small_models.VAE)
    write_encoder(ProbedEncoder(SPEECH_ENCODER).network, folder / small_models.SPEECH)
    return folder


def row(condition: str, seed: int, **numbers: float) -> Row:
    return Row("policies", condition, condition, seed, "models", 1.0, dict(numbers), {})


def test_the_interval_of_a_mean_is_students():
    found = spread([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.lowest, found.highest, found.count) == (2.5, 1, 4, 4)
    assert found.deviation == pytest.approx(1.2909944)
    assert found.interval == pytest.approx(3.1824463 * 1.2909944 / 2)


def test_one_value_says_nothing_about_the_spread():
    assert math.isinf(spread([2.0]).interval)


def test_a_difference_is_taken_on_the_same_characters():
    # Characters differ much from each other, the two conditions by exactly 0.1.
    rows = [row("M3", s, sync=s / 10) for s in (1, 2, 3)] + [row("M0", s, sync=s / 10 + 0.1) for s in (2, 3, 4)]
    found = paired(rows, "sync", "M0", "M3")
    assert found is not None
    assert found.mean == pytest.approx(0.1) and found.count == 2
    assert found.interval == pytest.approx(0, abs=1e-6)
    assert paired(rows, "sync", "M0", "M2") is None


def test_what_could_not_be_measured_does_not_count_as_zero():
    rows = [row("M3", 1, sync=0.5), replace(row("M3", 2), numbers={"sync": None})]
    assert values_of(rows, "M3", "sync") == {1: 0.5}


def test_a_row_cut_off_by_a_kill_costs_that_row_alone(tmp_path):
    append_row(tmp_path, row("M3", 1, sync=0.5))
    with (tmp_path / "policies.jsonl").open("a") as file:
        file.write('{"experiment": "pol')
    append_row(tmp_path, row("M3", 2, sync=0.6))
    assert [r.seed for r in read_rows(tmp_path, "policies")] == [1, 2]


def test_rows_of_other_models_do_not_mix(tmp_path):
    append_row(tmp_path, row("M3", 1))
    append_row(tmp_path, replace(row("M3", 2), models="retrained"))
    assert [r.seed for r in read_rows(tmp_path, "policies")] == [2]
    assert [r.seed for r in read_rows(tmp_path, "policies", "models")] == [1]


def test_the_page_around_the_tables_stays():
    page = put_between("# Results\n\nBefore.", f"{BEGIN}\nold\n{END}") + "\nAfter.\n"
    again = put_between(page, f"{BEGIN}\nnew\n{END}")
    assert again == page.replace("old", "new")
    assert again.startswith("# Results\n\nBefore.") and again.endswith("After.\n")


def test_strategies_differ_in_the_policy_alone():
    configs = {name: variant_config(policy, Scale()) for name, policy in STRATEGIES.items()}
    assert {name: c.policies for name, c in configs.items()} == {n: {p: 1.0} for n, p in STRATEGIES.items()}
    # The I2V baseline has nothing before its first chunk: that one looks at its own first frame.
    alike = {n: replace(c, policies={}, opening_share=0.0) for n, c in configs.items()}
    assert all(config == alike["M3"] for config in alike.values())
    assert [n for n, c in configs.items() if c.opening_share > 0] == ["I2V"]


def test_every_condition_can_be_planned_and_differs_from_the_others():
    for experiment in experiments(flite=True):
        settings = [condition.to_json() for condition in experiment.conditions]
        assert len(set(settings)) == len(settings)
        for condition in experiment.conditions:
            plan = condition.plan
            assert len(plan) == condition.chunks
            assert plan[-1].keep == plan[-1].length - plan[-1].context
        if experiment.reference:
            assert experiment.reference in [condition.name for condition in experiment.conditions]
        assert experiment.first_seed >= SEED


def test_a_row_names_no_folder_of_the_machine():
    assert "home" not in Condition("x", voice="/home/somebody/voice.wav").to_json()


def test_a_perfect_dub_is_in_sync_and_copies_nothing():
    """Measured on true pixels: a person drawn saying the dubbed words."""
    condition = Condition("x", chunks=6)
    scene = make_scene(condition, SEED, lambda sound: torch.zeros(sound.frames, 2, 16))
    assert len(scene.truth) == len(scene.source_opening) == condition.frames
    other = make_scene(Condition("x", chunks=6), SEED, lambda sound: torch.zeros(sound.frames, 2, 16))
    torch.testing.assert_close(scene.source, other.source, rtol=0, atol=0)
    # The source itself is a perfect dub of its own words.
    own = mouth_numbers(scene.source, replace(scene, truth=scene.source_opening))
    assert own["sync"] > 0.95 and own["lag"] == 0
    assert abs(own["shuffled"]) < 0.3
    undubbed = mouth_numbers(scene.source, scene)
    assert undubbed["mouth_copied"] > 0.95
    assert undubbed["sync"] < 0.4
    assert abs(own_words(scene)) < 0.05


def own_words(scene) -> float:
    """What a mouth that follows the voice with some noise has of the source's mouth beyond chance."""
    noise = np.random.default_rng(0).normal(0, 0.05, len(scene.truth))
    return partial_correlation(scene.truth + noise, scene.source_opening, scene.truth)


def test_psnr_is_that_of_a_known_error():
    assert psnr(torch.full((2, 4, 4, 3), 0.6), torch.full((2, 4, 4, 3), 0.5)) == pytest.approx(20, abs=1e-3)


def test_the_border_is_beside_the_person():
    mask = side_areas(torch.zeros(1, 96, 96, 3))
    assert mask[:50, :15].all() and mask[:50, -15:].all()
    assert not mask[:, 20:76].any() and not mask[60:].any()


def test_rows_are_made_once_and_shown(models, tmp_path, capsys):
    """The whole command with tiny models: a moving camera, twice; the second time nothing is left to do."""
    experiment = next(e for e in experiments() if e.name == "camera")
    kept = tuple(replace(c, chunks=2, steps=1) for c in experiment.conditions if c.name in ("none", "SDEdit 0.6"))
    small = replace(experiment, conditions=kept, seeds=2)
    tuning = FineTuning(models, tmp_path / "work", QUICK)
    tasks = paper_run.open_tasks([small], tmp_path, "tiny")
    assert len(tasks) == 4
    paper_run.run_tasks(tasks[:3], tuning, "tiny", tmp_path, threads=1)
    left = paper_run.open_tasks([small], tmp_path, "tiny")
    assert [(t.condition.name, t.seed) for t in left] == [("SDEdit 0.6", SEED + 1)]
    paper_run.run_tasks(left, tuning, "tiny", tmp_path, threads=1)
    rows = read_rows(tmp_path, "camera")
    assert len(rows) == 4
    for made in rows:
        assert all(math.isfinite(made.numbers[n]) for n in (*experiment.columns, "seam", "sharpness")), made.numbers
    files = write_report([small], tmp_path, tmp_path / "page" / "RESULTS.md")
    text = files[0].read_text()
    assert "| SDEdit 0.6 − none |" in text and "± " in text
    assert all(file.stat().st_size < 60_000 for file in files) and files[1].name == "camera.png"
    json.loads(rows[0].setting)


def test_each_strategy_gets_its_own_model(models, tmp_path, monkeypatch):
    """Fine-tuning: two steps on two samples."""
    monkeypatch.setattr(paper_variants, "PARTS", 1)
    tuning = FineTuning(models, tmp_path, Scale(samples=2, steps=2, batch=1))
    for name in ("M3", "FL2V"):
        paper_variants.train_variant(tuning, name)
        assert tuning.is_done(name)
    before, after = (small_models.load_model(f).backbone.head.head.weight for f in (models, tuning.variant("M3")))
    assert not torch.equal(before, after)
    assert tuning.variant("") == models
    assert not list(tuning.variant("M3").glob("*.pt"))


def test_the_baseline_looks_at_what_was_made(models):
    """I2V has no frame of the source to copy, so nothing is said about copied poses."""
    condition = Condition("I2V", chunks=2, policy=Policy.PREVIOUS_OUTPUT, steps=1)
    numbers, curves = make_row(condition, SEED, models, models)
    assert "pose_copied" not in numbers and numbers["mouth_copied"] is not None
    assert len(curves["worst_color"]) == 2
    assert TrainingConfig().shift == SHIFT


def test_a_join_is_compared_with_other_steps_between_latent_frames():
    """Steps that are larger from group to group of 4 frames, as the VAE's rhythm is, are no seam."""
    plan = plan_chunks(81, 33, 9)
    beat = torch.tensor([2.0, 1, 1, 1] * 20)
    assert seam_among_latents(beat, plan) == pytest.approx(1.0)
    beat[[32, 56]] = 3.0
    assert seam_among_latents(beat, plan) == pytest.approx(1.5)
