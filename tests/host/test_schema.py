"""What users' saved workflows rely on, and what the UI says about it: node ids, inputs, outputs, help, languages.

tests/host/object_info.json is the agreed state. After a change that is meant: start ComfyUI 0.3.75 with the pack
(`python3 tools/demo.py --ui`), then `python tools/object_info.py http://127.0.0.1:PORT`, `python tools/make_texts.py`
and `python tools/make_workflows.py`, and look at the difference before it is committed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCS, LOCALES = REPO / "js" / "docs", REPO / "locales"
LANGUAGES = ("en", "zh")
# Characters that mean something to the frontend's translations or to a Markdown table.
SPECIAL = re.compile(r"[|@{}]")


@pytest.fixture(scope="module")
def agreed() -> dict[str, Any]:
    from object_info import PACK_PREFIX, stored

    return {name: node for name, node in stored().items() if name.startswith(PACK_PREFIX)}


def texts(language: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def test_nodes_have_the_agreed_inputs_and_outputs(server: Any, agreed: dict[str, Any]) -> None:
    from object_info import normalized

    found = normalized(server.object_info())
    assert {name for name in found if name in agreed or name.startswith("InfiniteTalk")} == set(agreed)
    for name, node in agreed.items():
        for part, expected in node.items():
            assert found[name][part] == expected, f"{name}: {part}"


def test_every_input_says_what_it_is_for(agreed: dict[str, Any]) -> None:
    for name, node in agreed.items():
        assert node["description"], name
        for group in node["input"].values():
            for key, spec in group.items():
                assert spec[1].get("tooltip", "").strip().endswith("."), f"{name}.{key}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_all_texts_and_no_others(language: str, agreed: dict[str, Any]) -> None:
    found = texts(language)
    assert found.keys() == agreed.keys()
    for name, node in agreed.items():
        inputs = [key for group in node["input"].values() for key in group]
        assert sorted(found[name]["inputs"]) == sorted(inputs), name
        assert sorted(found[name]["outputs"]) == [str(i) for i in range(len(node["output"]))], name
        said = [found[name]["display_name"], found[name]["description"]]
        said += [t for entry in found[name]["inputs"].values() for t in (entry["name"], entry["tooltip"])]
        said += [entry["name"] for entry in found[name]["outputs"].values()]
        assert all(text.strip() and not SPECIAL.search(text) for text in said), name


def test_the_english_texts_are_the_schemas(agreed: dict[str, Any]) -> None:
    from make_texts import english

    assert texts("en") == english(agreed), "run python tools/make_texts.py"


def test_help_pages_list_the_inputs_and_outputs_as_they_are() -> None:
    from make_texts import pages
    from object_info import stored

    made = pages(stored())
    assert {path for path in DOCS.rglob("*.md")} == set(made)
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python tools/make_texts.py"
        assert text.count("\n## ") >= 5, f"{path}: steps, tips, errors, inputs and outputs"


LAST = {"en": ("Inputs", "Outputs"), "zh": ("输入", "输出")}
STEPS = {"en": "Steps", "zh": "步骤"}


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_a_help_page_shows_a_picture_then_three_steps_and_its_tables_last_in_two_columns(path: Path) -> None:
    language = "zh" if path.name == "zh.md" else "en"
    text = path.read_text(encoding="utf-8")
    picture = re.fullmatch(r"# .+\n\n!\[.+\]\((pictures/\w+\.jpg)\)\n\n(.|\n)+", text)
    assert picture and (DOCS / picture[1]).is_file()
    assert (DOCS / picture[1]).stat().st_size < 80_000
    headings = re.findall(r"^## (.+)$", text, flags=re.M)
    assert headings[0] == STEPS[language] and tuple(headings[-2:]) == LAST[language]
    steps = text.split(f"## {STEPS[language]}\n")[1].split("\n## ")[0]
    assert re.findall(r"^(\d)\. ", steps, flags=re.M) == ["1", "2", "3"]
    tables = [row for row in text.split(f"## {LAST[language][0]}\n")[1].splitlines() if row.startswith("|")]
    assert {row.count("|") for row in tables} == {3}


def test_the_policies_are_explained_in_five_lines(agreed: dict[str, Any]) -> None:
    from make_texts import english

    for found in (english(agreed), texts("zh")):
        lines = found["InfiniteTalkReferencePicker"]["inputs"]["policy"]["tooltip"].splitlines()
        assert len(lines) == 5 and all(len(line) <= 120 for line in lines)
    policies = agreed["InfiniteTalkReferencePicker"]["input"]["required"]["policy"][1]["options"]
    assert all(policy.split(",")[0] in " ".join(lines) for policy in policies)


def test_comfyui_serves_help_languages_and_scripts(server: Any, agreed: dict[str, Any]) -> None:
    for name in agreed:
        for page in (f"{name}.md", f"{name}/zh.md"):
            assert server.get(f"/extensions/infinitetalk/docs/{page}") == (DOCS / page).read_bytes()
    served = json.loads(server.get("/api/i18n"))
    for language in LANGUAGES:
        assert served[language]["nodeDefs"] == texts(language)
        assert served[language]["nodeCategories"]["infinitetalk"] == "InfiniteTalk"
    scripts = json.loads(server.get("/extensions"))
    ours = sorted(script for script in scripts if script.startswith("/extensions/infinitetalk/"))
    js = DOCS.parent
    expected = sorted(f"/extensions/infinitetalk/{path.relative_to(js).as_posix()}" for path in js.rglob("*.js"))
    assert ours == expected, "each is loaded once"
