"""The words of a user who does not know the pack's names find its nodes, its templates and its blueprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
WORDS = ("lip sync", "talking", "dub", "avatar", "wav2vec")
MAIN = ("InfiniteTalkChunkSampler", "InfiniteTalkModelLoader")


@pytest.mark.parametrize("word", WORDS)
def test_a_word_finds_a_node(word: str, pack: Any) -> None:
    import dataclasses
    from importlib import import_module

    from comfy_api.latest import io

    if not any(field.name == "search_aliases" for field in dataclasses.fields(io.Schema)):
        pytest.skip("this ComfyUI searches names only")
    schemas = [node.define_schema() for node in import_module(f"{pack.__name__}.nodes").NODES]
    found = {schema.node_id for schema in schemas if any(word in alias.lower() for alias in schema.search_aliases)}
    assert set(MAIN) <= found


@pytest.mark.parametrize("word", WORDS)
def test_a_word_finds_a_template(word: str) -> None:
    # The frontend searches the file names of a pack's templates and nothing else.
    titles = [path.stem.lower() for path in (REPO / "workflows").glob("*.json")]
    assert any(word in title for title in titles)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_an_alias_of_the_blueprint(word: str) -> None:
    import make_blueprint

    saved = json.loads(make_blueprint.FILE.read_text(encoding="utf-8"))
    assert any(word in alias.lower() for alias in [make_blueprint.NAME, *saved["extra"]["BlueprintSearchAliases"]])


def test_the_blueprint_is_what_the_tool_writes() -> None:
    import make_blueprint
    from object_info import stored

    assert make_blueprint.FILE.read_text(encoding="utf-8") == make_blueprint.text(stored()), (
        "run python tools/make_blueprint.py"
    )


def test_comfyui_offers_the_blueprint(server: Any) -> None:
    offered = json.loads(server.get("/global_subgraphs"))
    ours = {key: entry for key, entry in offered.items() if entry["info"]["node_pack"] == "custom_nodes.infinitetalk"}
    ((key, entry),) = ours.items()
    assert entry["name"] == "Talking Portrait (InfiniteTalk)"
    aliases = [*entry["info"]["search_aliases"], entry["name"].lower()]
    assert all(any(word in alias for alias in aliases) for word in WORDS), "what the frontend searches"
    content = json.loads(json.loads(server.get(f"/global_subgraphs/{key}"))["data"])
    (outside,) = content["nodes"]
    assert [output["type"] for output in outside["outputs"]] == ["VIDEO"]
    assert {slot["name"] for slot in outside["inputs"]} >= {"image", "audio", "quality", "size", "seed"}
