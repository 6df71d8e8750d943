"""Model folders: where people keep audio encoders and InfiniteTalk weights."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...infinitetalk_core.cache import FileStamp
from ...infinitetalk_core.errors import InputError

AUDIO_ENCODER_FOLDERS = ("audio_encoders", "wav2vec2", "transformers")
WEIGHT_FOLDERS = ("model_patches", "diffusion_models", "multitalk")
UNI3C_FOLDERS = ("controlnet", "model_patches")
AUDIO_ENCODER_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
GGUF_SUFFIX = ".gguf"
WEIGHT_SUFFIXES = (".safetensors", ".sft", GGUF_SUFFIX)
ENCODER_FOLDER_MARK = "config.json"


def register_folders() -> None:
    """Make the folders known that other packs use and ComfyUI has no name for."""
    for name in {*AUDIO_ENCODER_FOLDERS, *WEIGHT_FOLDERS} - set(folder_paths.folder_names_and_paths):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))


def audio_encoders() -> list[str]:
    """Audio encoders on disk, as choices: files, and folders with a config.json."""
    files = _files(AUDIO_ENCODER_FOLDERS, AUDIO_ENCODER_SUFFIXES)
    folders = [
        config.parent.relative_to(root).as_posix()
        for root in _roots(AUDIO_ENCODER_FOLDERS)
        for config in root.glob(f"*/{ENCODER_FOLDER_MARK}")
    ]
    inside = tuple(f"{folder}/" for folder in folders)
    return sorted({*folders, *(f for f in files if not f.startswith(inside))})


def infinitetalk_weights() -> list[str]:
    """Files that may hold InfiniteTalk weights, as choices: those whose name says so first."""
    files = _files(WEIGHT_FOLDERS, WEIGHT_SUFFIXES)
    return sorted(files, key=lambda f: (not _sounds_like_infinitetalk(f), f.lower()))


def uni3c_files() -> list[str]:
    """Files that may be Uni3C, as choices: those whose name says so first."""
    files = _files(UNI3C_FOLDERS, WEIGHT_SUFFIXES)
    return sorted(files, key=lambda f: ("uni3c" not in f.lower(), f.lower()))


def uni3c_path(name: str) -> Path:
    """The file behind a choice of `uni3c_files`."""
    return _path(name, UNI3C_FOLDERS, uni3c_files())


def audio_encoder_path(name: str) -> Path:
    """The file or folder behind a choice of `audio_encoders`."""
    return _path(name, AUDIO_ENCODER_FOLDERS, audio_encoders())


def infinitetalk_path(name: str) -> Path:
    """The file behind a choice of `infinitetalk_weights`."""
    return _path(name, WEIGHT_FOLDERS, infinitetalk_weights())


def file_stamp(path: Path) -> str:
    """Changes when the file, or a file of the folder, is replaced on disk, so that it is loaded again."""
    return str(FileStamp.of(path).parts)


def temp_folder() -> Path:
    """Where ComfyUI puts what is not kept."""
    return Path(folder_paths.get_temp_directory()).resolve()


def _sounds_like_infinitetalk(name: str) -> bool:
    return any(word in name.lower() for word in ("infinitetalk", "infinitalk", "multitalk"))


def _roots(folders: tuple[str, ...]) -> list[Path]:
    paths = [p for name in folders for p in folder_paths.get_folder_paths(name)]
    return [Path(p) for p in dict.fromkeys(paths) if os.path.isdir(p)]


def _files(folders: tuple[str, ...], suffixes: tuple[str, ...]) -> list[str]:
    found = {f for name in folders for f in folder_paths.get_filename_list(name)}
    if GGUF_SUFFIX in suffixes:
        # ComfyUI leaves out of its lists what its own loaders do not read.
        found |= {f for root in _roots(folders) for f in folder_paths.recursive_search(str(root), [".git"])[0]}
    return sorted(f.replace(os.sep, "/") for f in found if f.lower().endswith(suffixes))


def _path(name: str, folders: tuple[str, ...], offered: list[str]) -> Path:
    """Where `name` lies; only what is offered, since the name may come from an API client."""
    found = [root / name for root in _roots(folders) if (root / name).exists()]
    if name not in offered or not found:
        raise InputError(
            f"there is no {name!r} in models/{', models/'.join(folders)}; put the file there and press R to refresh"
        )
    return found[0]
