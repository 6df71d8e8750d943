"""A file that changes on the disk under a loaded model is named, never used in silence."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def host(pack):
    return import_module(f"{pack.__name__}.nodes.host.model.loaded_files")


class Weights(torch.nn.Module):
    """A live model."""


def test_a_file_that_changed_under_a_loaded_model_is_named(core, host, tmp_path):
    files, loaded, live = core.fingerprint.FileFingerprints(), host.LoadedFiles(), Weights()
    path, other = tmp_path / "style.safetensors", tmp_path / "other.safetensors"
    path.write_bytes(b"1")
    other.write_bytes(b"5")

    def check(model: Any, *paths: Path) -> None:
        loaded.check(model, {path: files.of(path) for path in paths})

    check(live, path)
    check(live, path, other)
    assert loaded.changed() == []
    path.write_bytes(b"2")
    (changed,) = loaded.changed()
    assert "style.safetensors" in changed
    check(Weights(), path)
    with pytest.raises(RuntimeError, match=r"style\.safetensors was changed on the disk after ComfyUI had.*/free"):
        check(live, path)
    path.write_bytes(b"1")
    assert loaded.changed(), "written anew"
    check(live, path)
    assert loaded.changed() == [], "but the same"
    other.unlink()
    assert loaded.changed()
    del live
    assert loaded.changed() == []


# -- the machine


def test_a_file_that_changed_while_the_job_began_is_named(core, host, tmp_path):
    """Between the loader and the first time that the object is seen."""
    files, loaded = core.fingerprint.FileFingerprints(), host.LoadedFiles()
    path = tmp_path / "vae.safetensors"
    path.write_bytes(b"1")
    first, second = Weights(), Weights()
    time.sleep(0.05)
    loaded.begin()
    loaded.check(first, {path: files.of(path)})
    time.sleep(0.05)
    path.write_bytes(b"2")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="was changed on the disk"):
            loaded.check(second, {path: files.of(path)})
    loaded.begin()
    loaded.check(Weights(), {path: files.of(path)})


@pytest.mark.parametrize("live", [None, {}, [], (), 5])
def test_objects_that_cannot_be_remembered_are_not_checked(host, live, tmp_path):
    host.LoadedFiles().check(live, {})
