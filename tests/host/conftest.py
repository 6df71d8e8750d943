"""A real ComfyUI for the tests: imported in this process, and as a server. See README.md."""

from __future__ import annotations

import json
import shutil
import sys
import wave
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

REPO = Path(__file__).resolve().parents[2]
sys.path += [str(REPO / "client"), str(REPO / "tools"), str(REPO / "tests" / "support")]

from in_process import comfyui_folder, enter_comfyui, load_pack  # noqa: E402

COMFYUI = comfyui_folder()
HAVE_HOST = (COMFYUI / "main.py").is_file()
# Three chunks of 29 frames with 5 of context, or one of 81; in whole blocks of AAC, which is read back in blocks.
SHORT_FRAMES = 72
SERVERS = {"server", "new_server", "servers", "faulty_server", "bench", "sampling_server"}  # fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=REPO / "tests" / "golden" / "data",
        help="folder of golden cases (<case>.json + <case>.safetensors); every size is read from the JSON",
    )
    parser.addoption("--seeds", type=int, default=1, help="how many seeds the demo's lip-sync is measured with")
    parser.addoption(
        "--servers", choices=("only", "none"), help="only tests that use a running server, or none of them"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if asked := config.getoption("--servers"):
        groups: dict[str, list[pytest.Item]] = {"only": [], "none": []}
        for item in items:
            groups["only" if uses_server(item) else "none"].append(item)
        items[:] = groups.pop(asked)
        config.hook.pytest_deselected(items=[item for others in groups.values() for item in others])
    if not HAVE_HOST:
        skip = pytest.mark.skip(reason=f"no ComfyUI in {COMFYUI}; run `python3 tools/host.py --tests` first")
        for item in items:
            item.add_marker(skip)


def uses_server(item: pytest.Item) -> bool:
    """Whether one of the fixtures that start a server is behind a test."""
    return not SERVERS.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_configure() -> None:
    """Before any test module is imported, so that they may import comfy at their top."""
    if HAVE_HOST:
        torch.set_num_threads(1)
        enter_comfyui(COMFYUI)


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The host's folder; `comfy` can be imported."""
    return COMFYUI


@pytest.fixture(scope="session")
def golden_dir(request: pytest.FixtureRequest) -> Path:
    """Where the golden cases are."""
    return request.config.getoption("--golden-dir")


@pytest.fixture(scope="session")
def pack(comfyui: Path) -> ModuleType:
    """The pack, imported as ComfyUI imports a custom node folder."""
    return load_pack()


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ComfyUI models folder with the small models, random (tiny_…) and trained (small_…)."""
    from make_tiny_models import write_tiny_models

    from small_models import place_trained_models

    folder = tmp_path_factory.mktemp("base") / "models"
    write_tiny_models(folder)
    place_trained_models(folder)
    return folder


@pytest.fixture(scope="session")
def samples() -> Path:
    """The repository's sample picture, video and voices."""
    return REPO / "samples"


@pytest.fixture(scope="session")
def voice_frames(samples: Path) -> int:
    """How many frames samples/voice.wav lasts."""
    with wave.open(str(samples / "voice.wav")) as file:
        return round(25 * file.getnframes() / file.getframerate())


@pytest.fixture(scope="session")
def short_voice(server: Any, samples: Path) -> str:
    """The name of a voice in the server's input folder, SHORT_FRAMES long: for tests that make many videos."""
    from fault_bench import shorten

    path = server.base / "input" / "short_voice.wav"
    shutil.copyfile(samples / "voice.wav", path)
    shorten(path, SHORT_FRAMES)
    return path.name


def _on(models: str) -> Callable[[Any], dict[str, Any]]:
    import small_models

    def make(workflow: dict[str, Any] | str) -> dict[str, Any]:
        if isinstance(workflow, str):
            workflow = json.loads((REPO / "workflows" / "api" / f"{workflow}.json").read_text())
        return small_models.with_small_models(workflow, getattr(small_models, models))

    return make


@pytest.fixture(scope="session")
def small() -> Callable[[Any], dict[str, Any]]:
    """`small(workflow)`: a workflow (a dict, or a name in workflows/api) on the small random models."""
    return _on("RANDOM")


@pytest.fixture(scope="session")
def trained() -> Callable[[Any], dict[str, Any]]:
    """`trained(workflow)`: the same on the small trained models, with their settings, as the demo runs it."""
    return _on("TRAINED")


def _make_server(base: Path, models: Path) -> Any:
    from comfy_server import ComfyServer

    from small_models import place_samples

    base.mkdir(parents=True, exist_ok=True)
    if not (base / "models").exists():
        (base / "models").symlink_to(models, target_is_directory=True)
    place_samples(REPO / "samples", base / "input")
    return ComfyServer(Path(sys.executable), COMFYUI, base, pack=REPO)


@pytest.fixture(scope="session")
def server(models_dir: Path) -> Iterator[Any]:
    """A running server with the pack, the small models and the samples."""
    with _make_server(models_dir.parent, models_dir) as running:
        yield running


@pytest.fixture
def new_server(models_dir: Path, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """`new_server()` starts a server of the test's own."""
    started: list[Any] = []

    def start() -> Any:
        server = _make_server(tmp_path / f"base{len(started)}", models_dir)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def servers(comfyui: Path, models_dir: Path, samples: Path) -> Iterator[Any]:
    """Starts servers with injectable faults (fault_bench.py)."""
    from fault_bench import Servers

    with Servers(comfyui, models_dir, samples) as found:
        yield found


@pytest.fixture(scope="session")
def faulty_server(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with injectable faults, shared by the tests that kill and restart it."""
    return servers.start(tmp_path_factory.mktemp("faulty"))


TINY_HEADS = 2
MODULES = {
    "adapter": "nodes.host.model.audio_adapter",
    "patchers": "nodes.host.model.patchers",
    "backend": "nodes.host.sampling.backend",
    "run": "nodes.host.sampling.run",
    "uni3c": "nodes.host.model.uni3c",
    "uni3c_step": "nodes.host.model.uni3c_step",
    "backbone": "nodes.host.model.backbone",
    "wrappers": "nodes.host.model.wan_wrappers",
    "audio": "infinitetalk_core.model.audio_adapter",
    "cross_attention": "infinitetalk_core.model.audio_cross_attention",
    "wan": "infinitetalk_core.model.wan",
    "network": "infinitetalk_core.model.uni3c",
    "camera": "infinitetalk_core.chunks.camera_control",
    "conditioning": "infinitetalk_core.chunks.conditioning",
    "plan": "infinitetalk_core.chunks.plan",
    "fingerprint": "infinitetalk_core.fingerprint",
    "job": "infinitetalk_core.chunks.job",
    "euler": "infinitetalk_core.sampling.euler",
    "guidance": "infinitetalk_core.sampling.guidance",
    "schedule": "infinitetalk_core.sampling.schedule",
    "renoise": "infinitetalk_core.sampling.renoise",
    "settings": "infinitetalk_core.sampling.settings",
    "sdedit": "infinitetalk_core.sampling.sdedit",
    "sync": "evaluation.sync",
    "drift": "evaluation.drift",
}


@pytest.fixture(scope="session")
def core(pack: ModuleType) -> SimpleNamespace:
    """Modules of the pack, from the package that ComfyUI loads."""
    return SimpleNamespace(**{k: import_module(f"{pack.__name__}.{v}") for k, v in MODULES.items()})


@pytest.fixture(scope="session")
def files(models_dir: Path) -> SimpleNamespace:
    """Where the small models are."""
    return SimpleNamespace(
        wan=models_dir / "diffusion_models" / "tiny_wan2.1_i2v.safetensors",
        infinitetalk=models_dir / "model_patches" / "tiny_infinitetalk_single.safetensors",
        uni3c=models_dir / "controlnet" / "tiny_uni3c.safetensors",
        lora=models_dir / "loras" / "tiny_lora.safetensors",
    )


@pytest.fixture(scope="session")
def own(core: SimpleNamespace, files: SimpleNamespace) -> SimpleNamespace:
    """The engine's own backbone and adapter with the same weights."""
    weights = {k: v.float() for k, v in load_file(files.wan).items()}
    backbone = core.wan.WanBackbone(
        core.wan.WanConfig.from_shapes({k: v.shape for k, v in weights.items()}, TINY_HEADS)
    ).eval()
    backbone.load_state_dict(weights)
    audio = {k: v.float() for k, v in load_file(files.infinitetalk).items()}
    config = core.audio.AdapterConfig.from_shapes({k: v.shape for k, v in audio.items()}, TINY_HEADS)
    adapter = core.audio.AudioAdapter(config).eval()
    adapter.load_state_dict(audio)
    return SimpleNamespace(backbone=backbone, adapter=adapter)


@pytest.fixture
def text_attention_as_in_comfyui(core: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CLIP vision, ComfyUI's image attention attends to the text; ours is told to do the same here."""
    attend = core.wan.CrossAttention.attend

    def like_comfyui(self, x, text, picture):
        return attend(self, x, text, text if picture is None else picture)

    monkeypatch.setattr(core.wan.CrossAttention, "attend", like_comfyui)
