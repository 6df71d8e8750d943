"""Golden cases: outputs of the reference implementation, see tests/golden/README.md."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from golden_rows import ROWS
from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class GoldenCase:
    """One case: `config` from the JSON, tensors by name, and the manifest's words on its tolerance.

    weights: of the file that `weights_from` of the JSON names, and over them those of the case itself.
    """

    name: str
    config: dict
    tensors: dict[str, Tensor]
    tolerances: str  # e.g. "latents rel L2 5e-5, frames abs 5e-4"
    weights: dict[str, Tensor] = field(default_factory=dict)

    def tolerance(self, word: str = "") -> float:
        """The first number in the phrase of the manifest's tolerance that contains `word`."""
        phrase = next(p for p in self.tolerances.split(",") if word in p)
        return float(re.findall(r"\d(?:\.\d+)?e-\d+", phrase)[0])

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose name starts with `prefix/`, without it."""
        return _under(self.tensors, prefix)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")}


def relative_l2(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want||, in float64."""
    assert got.shape == want.shape, f"shape {tuple(got.shape)} != {tuple(want.shape)}"
    got, want = got.double(), want.double()
    return ((got - want).norm() / want.norm().clamp_min(1e-30)).item()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each row of the set's JSON."""
    folder: Path = metafunc.config.getoption("--golden-dir")
    for argument, (case, rows_of) in ROWS.items():
        if argument in metafunc.fixturenames:
            path = folder / f"{case}.json"
            rows = rows_of(json.loads(path.read_text())["config"]) if path.exists() else {}
            metafunc.parametrize(argument, list(rows.values()), ids=list(rows))


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest):
    """`golden(case)` loads a case from --golden-dir."""
    folder: Path = request.config.getoption("--golden-dir")
    manifest = json.loads((folder / "manifest.json").read_text())
    cache: dict[str, GoldenCase] = {}

    def load(name: str) -> GoldenCase:
        if name not in cache:
            if not (folder / f"{name}.json").exists():
                pytest.skip(f"{folder} has no case {name}")
            config = json.loads((folder / f"{name}.json").read_text())["config"]
            # Ordinary tensors, also when the first test to ask runs in inference mode.
            with torch.inference_mode(False):
                tensors = load_file(folder / f"{name}.safetensors")
            tolerances = manifest["suggested_tolerances"].get(name, "")
            shared = re.match(r"(\w+)\.safetensors", config.get("weights_from", ""))
            weights = (load(shared[1]).weights if shared else {}) | _under(tensors, "weights")
            cache[name] = GoldenCase(name, config, tensors, tolerances, weights)
        return cache[name]

    return load


@pytest.fixture
def assert_close():
    """`assert_close(got, want, limit)`: relative L2 error at most `limit`."""

    def check(got: Tensor, want: Tensor, limit: float, what: str = "") -> None:
        assert torch.isfinite(got).all(), f"{what}: not finite"
        error = relative_l2(got, want)
        assert error <= limit, f"{what}: relative L2 {error:.3g} > {limit:.3g}"

    return check
