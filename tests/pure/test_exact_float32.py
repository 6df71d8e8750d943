"""What promises float32 is computed without TF32 and half precision on any device; the user's settings come back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import backends

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.camera import render
from infinitetalk_core.camera.path import Move, camera_path, picture_intrinsics
from infinitetalk_core.chunks import color
from infinitetalk_core.model.exact_float32 import exact_float32, switches
from tests.support.speech import tiny_wav2vec

NEW_STYLE = hasattr(backends.cuda.matmul, "fp32_precision")
SOUND = Sound(torch.sin(torch.arange(32000) / 20)[None], 16000)


def allow(cudnn: bool, matmul: str) -> Callable[[], None]:
    """The older switches."""

    def set_all() -> None:
        backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(matmul)

    return set_all


def newer(conv: str, rnn: str, matmul: str, everything: str = "none") -> Callable[[], None]:
    """The newer switches alone."""

    def set_all() -> None:
        backends.cudnn.conv.fp32_precision, backends.cudnn.rnn.fp32_precision = conv, rnn
        backends.cuda.matmul.fp32_precision, backends.fp32_precision = matmul, everything

    return set_all


SETTINGS = {
    "PyTorch's own": lambda: None,
    "TF32 everywhere": allow(True, "high"),
    "bfloat16 on the CPU": allow(True, "medium"),
    "exact": allow(False, "highest"),
}
if NEW_STYLE:
    SETTINGS |= {
        "TF32 by the newer switches": newer("tf32", "tf32", "tf32"),
        "exact convolutions only": newer("ieee", "tf32", "none"),  # the older switches cannot be read here
        "TF32 by the switch for everything": newer("none", "none", "none", "tf32"),
    }


def state() -> list[Any]:
    """The values of all switches, and which of them PyTorch refuses to read."""
    found = []
    for switch in switches():
        try:
            found.append(switch.read())
        except RuntimeError:
            found.append("refused")
    return [*found, backends.fp32_precision if NEW_STYLE else None]


@pytest.fixture(params=SETTINGS)
def setting(request):
    """A state of the switches before the work; afterwards they are PyTorch's own again."""
    SETTINGS[request.param]()
    yield request.param
    if NEW_STYLE:
        newer("tf32", "tf32", "none")()
    allow(True, "highest")()
    if NEW_STYLE:
        for owner in (backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul):
            owner.fp32_precision = "none"


def is_exact() -> bool:
    """Whether convolutions and matrix products are computed in float32 now, by every switch that can be read."""
    if NEW_STYLE:
        owners = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
        if any(owner.fp32_precision != "ieee" for owner in owners):
            return False
    values = zip(switches(), state(), strict=False)
    return all(value in (switch.exact, "refused") for switch, value in values)


@pytest.fixture
def encoder():
    return tiny_wav2vec()


def test_every_layer_of_the_speech_encoder_is_computed_exactly(encoder, setting):
    before, seen = state(), []
    for module in encoder.network.modules():
        module.register_forward_pre_hook(lambda *_: seen.append(is_exact()))
    encoder.encode(SOUND)
    assert seen
    assert all(seen)
    assert state() == before


def test_the_settings_come_back_after_an_error_and_an_interrupt(encoder, setting):
    before = state()

    def interrupt(fraction: float) -> None:
        assert is_exact()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(SOUND, report=interrupt)
    assert state() == before
    with pytest.raises(ZeroDivisionError), exact_float32():
        1 / 0  # noqa: B018
    assert state() == before


def test_older_and_newer_switches_agree_inside(setting):
    """Other code may read either style there, and PyTorch raises an error where they contradict each other."""
    before = state()
    with exact_float32():
        assert is_exact()
        refused = {i for i, value in enumerate(before) if value == "refused"}
        assert {i for i, value in enumerate(state()) if value == "refused"} <= refused


def test_threads_share_the_window(setting):
    """The first that leaves takes nothing from the second, and the last brings the settings back."""
    before = state()
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with exact_float32():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with exact_float32():
        thread.start()
        assert entered.wait(10)
        with exact_float32():
            assert is_exact()
    assert is_exact()
    leave.set()
    thread.join()
    assert state() == before


def test_colors_and_camera_paths_are_computed_exactly(monkeypatch, setting):
    seen = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            seen.append(is_exact())
            return function(*args)

        return call

    before = state()
    monkeypatch.setattr(color, "rgb_to_lab", watched(color.rgb_to_lab))
    for name in ("edges", "_project"):
        monkeypatch.setattr(render, name, watched(getattr(render, name)))
    picture = torch.rand(16, 24, 3)
    color.hold_color(torch.rand(2, 16, 24, 3), picture, 1.0)
    cameras = camera_path(Move(), 5, 1.0, picture_intrinsics(16, 24, 50.0))
    render.PathRenderer(picture, torch.rand(16, 24) + 1, cameras).render(slice(0, 3))
    assert len(seen) >= 4
    assert all(seen)
    assert state() == before
