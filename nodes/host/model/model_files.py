"""Lists and resolves files in the model folders: audio encoders, InfiniteTalk weights and Uni3C."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ....infinitetalk_core.checkpoints.opened import stamp_of
from ....infinitetalk_core.errors import InputError

AUDIO_ENCODER_FOLDERS = ("audio_encoders", "wav2vec2", "transformers")
WEIGHT_FOLDERS = ("model_patches", "diffusion_models", "multitalk")
UNI3C_FOLDERS = ("controlnet", "model_patches")
AUDIO_ENCODER_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
GGUF_SUFFIX = ".gguf"
WEIGHT_SUFFIXES = (".safetensors", ".sft", GGUF_SUFFIX)
ENCODER_FOLDER_MARK = "config.json"


def register_folders() -> None:
    """Register the model folders that other packs use and ComfyUI does not know."""
    for name in {*AUDIO_ENCODER_FOLDERS, *WEIGHT_FOLDERS} - set(folder_paths.folder_names_and_paths):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))


def audio_encoders() -> list[str]:
    """List the audio encoders on disk, as choices: files, and folders with a config.json."""
    files = _files(AUDIO_ENCODER_FOLDERS, AUDIO_ENCODER_SUFFIXES)
    folders = [
        config.parent.relative_to(root).as_posix()
        for root in _roots(AUDIO_ENCODER_FOLDERS)
        for config in root.glob(f"*/{ENCODER_FOLDER_MARK}")
    ]
    inside = tuple(f"{folder}/" for folder in folders)
    return sorted({*folders, *(f for f in files if not f.startswith(inside))})


def infinitetalk_weights() -> list[str]:
    """List files that may hold InfiniteTalk weights, as choices; those whose name matches come first."""
    files = _files(WEIGHT_FOLDERS, WEIGHT_SUFFIXES)
    return sorted(files, key=lambda f: (not _is_named_infinitetalk(f), f.lower()))


def uni3c_files() -> list[str]:
    """List files that may be Uni3C, as choices; those whose name matches come first."""
    files = _files(UNI3C_FOLDERS, WEIGHT_SUFFIXES)
    return sorted(files, key=lambda f: ("uni3c" not in f.lower(), f.lower()))


def uni3c_path(name: str) -> Path:
    """Return the path of a choice from `uni3c_files`. Raises InputError if it is not there."""
    return _path(name, UNI3C_FOLDERS, uni3c_files())


def audio_encoder_path(name: str) -> Path:
    """Return the file or folder of a choice from `audio_encoders`. Raises InputError if it is not there."""
    return _path(name, AUDIO_ENCODER_FOLDERS, audio_encoders())


def infinitetalk_path(name: str) -> Path:
    """Return the path of a choice from `infinitetalk_weights`. Raises InputError if it is not there."""
    return _path(name, WEIGHT_FOLDERS, infinitetalk_weights())


def file_stamp(path: Path) -> str:
    """Return a string that changes when the file, or a file of the folder, is replaced on disk: then it is reloaded."""
    return str(stamp_of(path).parts)


def temp_folder() -> Path:
    """Return ComfyUI's temp folder."""
    return Path(folder_paths.get_temp_directory()).resolve()


def _is_named_infinitetalk(name: str) -> bool:
    return any(word in name.lower() for word in ("infinitetalk", "infinitalk", "multitalk", "flashtalk"))


def _roots(folders: tuple[str, ...]) -> list[Path]:
    paths = [p for name in folders for p in folder_paths.get_folder_paths(name)]
    return [Path(p) for p in dict.fromkeys(paths) if os.path.isdir(p)]


def _files(folders: tuple[str, ...], suffixes: tuple[str, ...]) -> list[str]:
    found = {f for name in folders for f in folder_paths.get_filename_list(name)}
    if GGUF_SUFFIX in suffixes:
        # ComfyUI's lists leave out GGUF files, which its own loaders do not read.
        found |= {f for root in _roots(folders) for f in folder_paths.recursive_search(str(root), [".git"])[0]}
    return sorted(f.replace(os.sep, "/") for f in found if f.lower().endswith(suffixes))


def _path(name: str, folders: tuple[str, ...], offered: list[str]) -> Path:
    """Return the path of `name`. Accepts only listed names, since the name may come from an API client.

    Raises InputError for any other name or a missing file.
    """
    found = [root / name for root in _roots(folders) if name in offered and (root / name).exists()]
    if not found:
        raise InputError(
            f"there is no {name!r} in models/{', models/'.join(folders)}; put the file there and press R to refresh"
        )
    return found[0]
