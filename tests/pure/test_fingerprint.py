"""What a job is known by: every field that changes the video, and all of the content behind it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from infinitetalk_core import fingerprint
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.camera.guide import PathGuide
from infinitetalk_core.camera.path import Move, Swing
from infinitetalk_core.chunks.camera_control import CameraControl, FilmedGuide
from infinitetalk_core.chunks.job import ColorHold, Components, HoldBy, Job, Output, Reference, Sampling
from infinitetalk_core.chunks.pinned import Pinned
from infinitetalk_core.chunks.redo import AfterRedo, Redo
from infinitetalk_core.chunks.reference import AfterEnd, Policy, ReferenceSettings
from infinitetalk_core.errors import RunError
from infinitetalk_core.fingerprint import (
    EXCLUDED,
    Component,
    FileFingerprints,
    describe,
    differences,
    file_fingerprint,
    key_of,
    stream_fingerprint,
    tensor_fingerprint,
)
from infinitetalk_core.sampling.guidance import Apg
from infinitetalk_core.sampling.settings import SamplingSettings
from infinitetalk_core.sampling.step_cache import StepCaching
from infinitetalk_core.speakers import Box
from infinitetalk_core.speech import Speech
from infinitetalk_core.video.format import Codec, VideoFormat
from infinitetalk_core.video.source import PictureBatch

FRAMES, SOURCE_FRAMES, HEIGHT, WIDTH = 40, 120, 32, 48


KEYS = ("one voice", "another")
SWING = Swing((0.0, 1.0), (0.0, 2.0), (0.0, 0.1))


def pictures(level: float = 0.5) -> PictureBatch:
    frames = torch.full((SOURCE_FRAMES, HEIGHT, WIDTH, 3), 0.5)
    frames[7, 3, 5, 1] = level
    return PictureBatch(frames)


def component(name: str) -> Component:
    return Component(object(), name)


def path_guide(path: Move | Swing) -> PathGuide:
    return PathGuide(torch.zeros(HEIGHT, WIDTH, 3), torch.ones(HEIGHT, WIDTH), path, 50, 55.0, 5.0)


def make_job(guide: Any = None) -> Job:
    """A job in which nothing is left out."""
    features, sound = torch.zeros(FRAMES, 1, 2), Sound(torch.zeros(1, FRAMES * 640), 16000)
    return Job(
        speech=Speech((features, features + 1), sound, (Box(0, 0, 9, 9),) * 2, KEYS),
        reference=Reference(
            pictures(),
            HEIGHT,
            WIDTH,
            ReferenceSettings(Policy.NEIGHBOR, times_seconds=(0.0, 1.0)),
            cuts=(SOURCE_FRAMES - 9,),
        ),
        sampling=Sampling(
            seed=3,
            settings=SamplingSettings(apg=Apg(-0.75, 55.0), chunk_frames=81, context_frames=9),
            sigmas=torch.tensor([1.0, 0.5, 0.0]),
            step_cache=StepCaching(),
            chunk_frames=13,
            context_frames=5,
            sdedit=(0.9,),
            pinned=Pinned(torch.ones(1, HEIGHT, WIDTH)),
            camera=CameraControl(component("uni3c"), guide or FilmedGuide(pictures())),
        ),
        components=Components(*map(component, ("model", "vae", "clip vision", "positive", "negative", "sampler"))),
    )


JOBS = {
    "a filmed camera": make_job(),
    "a path": make_job(path_guide(Move())),
    "a swing": make_job(path_guide(SWING)),
}
# Another value for each field, by class and field. Of an excluded field it must not make another key.
OTHER: dict[str, Any] = {
    "Apg.momentum": -0.5,
    "Apg.norm_threshold": 54.0,
    "Box.x0": 1.0,
    "Box.y0": 1.0,
    "Box.x1": 8.0,
    "Box.y1": 8.0,
    "CameraControl.controlnet": component("another"),
    "CameraControl.guide": FilmedGuide(pictures(0.25)),
    "CameraControl.strength": 0.9,
    "CameraControl.start": 0.1,
    "CameraControl.end": 0.9,
    "ColorHold.strength": 0.5,
    "ColorHold.to_first": True,
    "ColorHold.over": 1,
    "ColorHold.by": HoldBy.REGION,
    "ColorHold.device": torch.device("cpu"),
    "Component.value": object(),
    "Component.fingerprint": "of another",
    **{f"Components.{name}": component(f"another {name}") for name in (f.name for f in dataclasses.fields(Components))},
    "FilmedGuide.source": pictures(0.25),
    "FilmedGuide.after_end": AfterEnd.LOOP,
    "Job.speech": lambda job: dataclasses.replace(job.speech, areas=None),
    "Job.reference": lambda job: dataclasses.replace(job.reference, height=64),
    "Job.sampling": lambda job: dataclasses.replace(job.sampling, seed=4),
    "Job.components": None,
    "Job.output": Output(VideoFormat(crf=20)),
    "Job.redo": Redo("2=5"),
    "Move.d_r": 0.5,
    **{f"Move.{name}": 0.25 for name in ("d_theta", "d_phi", "x_offset", "y_offset", "z_offset", "focal_length")},
    "Swing.d_theta": (0.0, 1.5),
    "Swing.d_phi": (0.0, 2.5),
    "Swing.farther": (0.0, 0.2),
    "Swing.focal_length": 0.5,
    "Output.format": VideoFormat(Codec.HEVC),
    "Output.filename_prefix": "elsewhere/name",
    "Output.start_over": True,
    "Output.keep_intermediates": True,
    "Output.first_chunk_only": True,
    "PathGuide.picture": torch.full((HEIGHT, WIDTH, 3), 0.1),
    "PathGuide.depth": torch.full((HEIGHT, WIDTH), 2.0),
    "PathGuide.path": lambda guide: Move() if isinstance(guide.path, Swing) else SWING,
    "PathGuide.frames": 51,
    "PathGuide.field_of_view": 54.0,
    "PathGuide.start_elevation": 4.0,
    "PathGuide.device": torch.device("cpu"),
    "ReferenceSettings.policy": Policy.CHUNK_START,
    "ReferenceSettings.after_end": AfterEnd.PING_PONG,
    "ReferenceSettings.radius_seconds": 0.5,
    "ReferenceSettings.seed": 9,
    "ReferenceSettings.control": 0.25,
    "ReferenceSettings.times_seconds": (0.0, 2.0),
    "Pinned.masks": torch.cat([torch.ones(1, HEIGHT - 1, WIDTH), torch.zeros(1, 1, WIDTH)], dim=1),
    "Pinned.feather": 8.0,
    "Redo.chunks": "2=5",
    "Redo.after": AfterRedo.KEEP,
    "Reference.source": pictures(0.25),
    "Reference.height": 64,
    "Reference.width": 64,
    "Reference.settings": ReferenceSettings(Policy.STILL),
    "Reference.cuts": (SOURCE_FRAMES - 9, SOURCE_FRAMES - 5),  # one more, behind all that is seen
    "Sampling.seed": 4,
    "Sampling.settings": SamplingSettings(steps=9),
    "Sampling.sigmas": torch.tensor([1.0, 0.25, 0.0]),
    "Sampling.step_cache": None,
    "Sampling.chunk_frames": 17,
    "Sampling.context_frames": 9,
    "Sampling.color": ColorHold(0.0),
    "Sampling.seam_fade": 0,
    "Sampling.retry_lips": 1,
    "Sampling.sdedit": (0.9, 0.8),
    "Sampling.pinned": None,
    "Sampling.camera": None,
    "SamplingSettings.steps": 9,
    "SamplingSettings.text_scale": 1.5,
    "SamplingSettings.audio_scale": 1.5,
    "SamplingSettings.shift": 3.0,
    "SamplingSettings.apg": None,
    "SamplingSettings.guidance_start": 0.25,
    "SamplingSettings.guidance_end": 0.5,
    "SamplingSettings.renoise": True,
    "SamplingSettings.chunk_frames": 33,
    "SamplingSettings.context_frames": 5,
    "Sound.waveform": torch.cat([torch.zeros(1, FRAMES * 640 - 1), torch.ones(1, 1)], dim=1),
    "Sound.sample_rate_hz": 15999,
    "Speech.voices": lambda speech: tuple(reversed(speech.voices)),
    "Speech.voice_keys": ("another", "one voice"),
    "Speech.sound": Sound(torch.ones(1, FRAMES * 640), 16000),
    "Speech.areas": None,
    "Speech.tracks": (Sound(torch.ones(1, FRAMES * 640), 16000),) * 2,
    "StepCaching.threshold": 0.1,
    "StepCaching.calibration": (1.0, 0.0),
    "StepCaching.first_steps": 6,
    "StepCaching.on_gpu": True,
}


def fields_in(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """(class and field, way from the job, its owner) of every field of every dataclass in `part`."""
    if isinstance(part, tuple):
        for number, item in enumerate(part):
            yield from fields_in(item, (*path, number))
    elif dataclasses.is_dataclass(part) and (isinstance(part, Speech) or not hasattr(part, "fingerprint")):
        for field in dataclasses.fields(part):
            yield f"{type(part).__name__}.{field.name}", (*path, field), part
            yield from fields_in(getattr(part, field.name), (*path, field))
    elif dataclasses.is_dataclass(part) and isinstance(part, Component):
        for field in dataclasses.fields(part):
            yield f"Component.{field.name}", (*path, field), part


def with_value(part: Any, path: tuple[Any, ...], value: Any) -> Any:
    """`part` with another value at the end of `path`."""
    if not path:
        return value
    step, *rest = path
    if isinstance(step, int):
        return tuple(with_value(item, tuple(rest), value) if i == step else item for i, item in enumerate(part))
    return dataclasses.replace(part, **{step.name: with_value(getattr(part, step.name), tuple(rest), value)})


def key(job: Job) -> str:
    return key_of(job.description())


FIELDS = [(title, name, path) for title, job in JOBS.items() for name, path, _ in fields_in(job)]


@pytest.mark.parametrize(("title", "name", "path"), FIELDS, ids=[f"{name} ({title})" for title, name, _ in FIELDS])
def test_each_field_makes_another_key_unless_it_is_excluded(title, name, path):
    job = JOBS[title]
    owner = job
    for step in path[:-1]:
        owner = owner[step] if isinstance(step, int) else getattr(owner, step.name)
    value = OTHER[name](owner) if callable(OTHER[name]) else OTHER[name]
    changed = with_value(job, path, value)
    before = getattr(owner, path[-1].name)
    assert value is not before
    reasons = [step.metadata[EXCLUDED] for step in path if not isinstance(step, int) and EXCLUDED in step.metadata]
    if reasons:
        assert key(changed) == key(job)
        assert all(len(reason) > 10 for reason in reasons)
    else:
        assert key(changed) != key(job)


def test_every_field_has_a_case_and_no_part_is_left_out():
    reached = {name for _, name, _ in FIELDS}
    assert reached == set(OTHER)
    owners = [(name, getattr(owner, path[-1].name)) for job in JOBS.values() for name, path, owner in fields_in(job)]
    filled = {name for name, value in owners if value is not None}
    assert reached - filled == {"ColorHold.device", "PathGuide.device"}, "a part that is None hides its fields"


def test_the_same_job_put_together_again_has_the_same_key():
    assert key(make_job()) == key(make_job())
    other = dataclasses.replace(make_job(), redo=Redo("1=3", AfterRedo.KEEP))
    assert key(other) == key(make_job()), "a chunk made again belongs to the same run"


def test_a_cut_that_is_seen_makes_another_key():
    job = make_job()
    cut = dataclasses.replace(job, reference=dataclasses.replace(job.reference, cuts=(20, SOURCE_FRAMES - 9)))
    assert key(cut) != key(job)


def test_settings_of_a_codec_that_has_none_do_not_count():
    assert describe(VideoFormat(Codec.LOSSLESS, crf=1)) == describe(VideoFormat(Codec.LOSSLESS, crf=2))
    assert len({key_of(describe(VideoFormat(*f))) for f in ((Codec.H264,), (Codec.H264, 10), (Codec.H264, 8, 3))}) == 3


def test_what_cannot_be_read_is_never_left_out_in_silence():
    with pytest.raises(TypeError, match="object has no fingerprint"):
        describe({"a": [object()]})
    assert describe({"a": [object()]}, lambda value: "unread") == {"a": ["unread"]}


def test_numbers_of_other_packages_are_numbers():
    assert describe([np.int64(3), np.float32(0.5), np.bool_(True), Fraction(1, 3)]) == [3, 0.5, True, "1/3"]
    assert key_of(describe({"text": "她在笑 \ud83d"})), "half an emoji too"


# -- content


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.bool])
def test_a_tensor_is_known_by_all_of_it(dtype, monkeypatch):
    """Every place is as good as another: a mask repainted in one pixel of one frame."""
    monkeypatch.setattr(fingerprint, "HASH_BLOCK_BYTES", 64)
    plain = torch.zeros(9, 7, 11).to(dtype)
    seen = {tensor_fingerprint(plain)}
    for position in range(0, plain.numel(), 5):
        changed = torch.zeros(9 * 7 * 11)
        changed[position] = 1
        seen.add(tensor_fingerprint(changed.view(9, 7, 11).to(dtype)))
    assert len(seen) == 1 + -(-plain.numel() // 5)


def test_a_view_is_its_numbers():
    a = torch.rand(6, 5, 4)
    for view in (a.permute(2, 0, 1), a[:, 1:3], a[::2], a[0, 0, 0], a[:0]):
        assert tensor_fingerprint(view) == tensor_fingerprint(view.clone())
    assert tensor_fingerprint(torch.zeros(1, 1).expand(2, 9)) == tensor_fingerprint(torch.zeros(2, 9))


def test_tensors_differ_by_a_single_bit_by_shape_and_by_type():
    a = torch.arange(12.0).view(3, 4)
    assert tensor_fingerprint(a) == tensor_fingerprint(a.t().contiguous().t())
    b = a.clone()
    b.view(torch.int32)[2, 3] ^= 1
    others = [b, a.view(4, 3), a.to(torch.bfloat16), a.view(torch.int32), torch.tensor(1.0), torch.zeros(0)]
    assert len({tensor_fingerprint(t) for t in [a, *others]}) == 7


def test_a_file_is_its_content_and_not_its_name_or_date(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"picture" * 100_000)
    b.write_bytes(a.read_bytes())
    os.utime(b, (0, 0))
    assert file_fingerprint(a) == file_fingerprint(b)
    b.write_bytes(a.read_bytes()[:-1] + b"!")
    assert file_fingerprint(a) != file_fingerprint(b)


def test_a_file_is_read_whole_and_its_position_stays(tmp_path):
    path = tmp_path / "film"
    size = 40_000_000
    path.write_bytes(bytes(size))
    with open(path, "r+b", buffering=0) as file:
        seen = {stream_fingerprint(file)}
        for position in range(0, size, 1_234_567):
            file.seek(position)
            file.write(b"x")
            seen.add(stream_fingerprint(file))
            assert file.tell() == position + 1
            file.seek(position)
            file.write(b"\0")
    assert len(seen) == 1 + -(-size // 1_234_567)


def test_large_weights_are_known_by_samples_and_both_times(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "SAMPLED_FROM_BYTES", 1000)
    monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 8)
    monkeypatch.setattr(fingerprint, "SAMPLES", 4)
    path = tmp_path / "wan.safetensors"
    path.write_bytes(bytes(100_000))
    first = FileFingerprints().of(path)[1]
    assert FileFingerprints().of(path)[1] == first
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(500)  # between two samples
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as editors and archives do
    assert FileFingerprints().of(path)[1] != first, "the time of the inode tells"


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path, monkeypatch):
    path, read = tmp_path / "weights", []
    plain = fingerprint._read_fingerprint
    monkeypatch.setattr(
        fingerprint,
        "_read_fingerprint",
        lambda path, check_interrupted: read.append(path) or plain(path, check_interrupted),
    )
    files = FileFingerprints()
    path.write_bytes(b"1")
    assert files.of(path)[1] == files.of(path)[1] == file_fingerprint(path)
    assert len(read) == 1
    stamp = path.stat()
    path.write_bytes(b"2")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert files.of(path)[1] == file_fingerprint(path), "edited in place, its date set back"
    assert len(read) == 2


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"1")
    plain = fingerprint._read_fingerprint

    def written_meanwhile(position, check_interrupted):
        found = plain(position, check_interrupted)
        path.write_bytes(b"22")
        return found

    monkeypatch.setattr(fingerprint, "_read_fingerprint", written_meanwhile)
    with pytest.raises(RunError, match="was changed while it was read"):
        FileFingerprints().of(path)


def test_differences_are_named_by_their_path():
    one = {"versions": {"torch": "2.9", "av": {"pyav": "14"}}, "job": 1}
    other = {"versions": {"torch": "2.10", "av": {"pyav": "14"}}, "job": 1, "more": True}
    assert list(differences(one, other)) == [
        ("more", fingerprint.ABSENT, True),
        ("versions.torch", "2.9", "2.10"),
    ]


def test_a_picture_in_any_order_of_memory_is_hashed_at_once(monkeypatch):
    """As Upscale Image and VAE Decode give them: channels first in memory. Row by row it took minutes."""
    pieces = []
    plain = fingerprint._pieces
    monkeypatch.setattr(fingerprint, "_pieces", lambda tensor: (pieces.append(1) or part for part in plain(tensor)))
    pictures = torch.rand(3, 3, 480, 832).movedim(1, -1)
    four = torch.rand(3, 480, 832, 4)[..., :3]
    for batch in (pictures, four):
        pieces.clear()
        assert tensor_fingerprint(batch) == tensor_fingerprint(batch.contiguous())
        assert len(pieces) < 20


def test_arrays_and_what_is_no_plain_tensor():
    assert describe(np.arange(3.0)) == describe(torch.arange(3.0, dtype=torch.float64))
    with pytest.raises(TypeError):
        describe(torch.eye(3).to_sparse())
    assert describe([torch.eye(3).to_sparse()], lambda value: "unread") == ["unread"]


def test_reading_can_be_interrupted(tmp_path):
    path = tmp_path / "film"
    path.write_bytes(bytes(40_000_000))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FileFingerprints(interrupt).of(path)
    with path.open("rb") as file, pytest.raises(KeyboardInterrupt):
        FileFingerprints(interrupt).of_open(file)
