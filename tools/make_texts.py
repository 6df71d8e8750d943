"""Update the texts about the nodes from the nodes' schemas.

    python tools/make_texts.py

Writes locales/en/nodeDefs.json, and in the help pages (js/docs) the tables of inputs and outputs; the rest of a page is
written by hand. The tables come last, in two columns that fit the panel. Names, ranges and the English texts come from
tests/host/object_info.json (tools/object_info.py), the Chinese texts from locales/zh/nodeDefs.json. The pictures are
made by make_help_pictures.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import object_info

REPO = Path(__file__).resolve().parents[1]
DOCS, LOCALES = REPO / "js" / "docs", REPO / "locales"
# The headings of a page's sections and columns, by language.
TRANSLATIONS: dict[str, dict[str, Any]] = {
    "en": {
        "inputs": "Inputs",
        "outputs": "Outputs",
        "input_columns": ("Parameter", "What it does"),
        "output_columns": ("Output", "Data Type"),
        "optional": "optional",
        "to": "{} to {}",
        "steps": "{}, in steps of {}",
        "default": "default {}",
        "empty": "empty",
    },
    "zh": {
        "inputs": "输入",
        "outputs": "输出",
        "input_columns": ("参数", "说明"),
        "output_columns": ("输出", "数据类型"),
        "optional": "可选",
        "to": "{} ~ {}",
        "steps": "{}，步长 {}",
        "default": "默认 {}",
        "empty": "空",
    },
}
Info = dict[str, Any]


def english(info: Info) -> Info:
    """Return locales/en/nodeDefs.json from the schemas."""
    return {name: _texts(node) for name, node in _pack_nodes(info).items()}


def _texts(node: Info) -> Info:
    inputs = {
        key: {"name": key, "tooltip": spec[1]["tooltip"]}
        for group in node["input"].values()
        for key, spec in group.items()
    }
    outputs = {str(i): {"name": name} for i, name in enumerate(node["output_name"])}
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": outputs,
    }


def _pack_nodes(info: Info) -> Info:
    return {name: node for name, node in info.items() if name.startswith(object_info.PACK_PREFIX)}


def page(text: str, language: str, node: Info, texts: Info) -> str:
    """Return a help page with updated tables."""
    words = TRANSLATIONS[language]
    tables = {
        "inputs": _table(words["input_columns"], _input_rows(node, texts, language)),
        "outputs": _table(words["output_columns"], _output_rows(node, texts)),
    }
    for section, table in tables.items():  # at the end: what is read first comes first
        heading = f"\n## {words[section]}\n"
        if heading not in text:
            raise ValueError(f"the page has no section {heading.strip()!r}")
        before, after = text.split(heading, 1)
        rest = re.search(r"^## ", after, flags=re.M)
        text = f"{before.rstrip()}\n\n{after[rest.start() :] if rest else ''}".rstrip() + f"\n{heading}\n{table}"
    return text.rstrip() + "\n"


def _input_rows(node: Info, texts: Info, language: str) -> list[tuple[str, ...]]:
    words = TRANSLATIONS[language]
    return [
        (
            _label(key, texts["inputs"][key]["name"]),
            f"{' '.join(texts['inputs'][key]['tooltip'].splitlines())} *{_values(spec, group == 'optional', words)}*",
        )
        for group in ("required", "optional")
        for key, spec in node["input"].get(group, {}).items()
    ]


def _output_rows(node: Info, texts: Info) -> list[tuple[str, ...]]:
    return [
        (_label(name, texts["outputs"][str(i)]["name"]), kind)
        for i, (name, kind) in enumerate(zip(node["output_name"], node["output"], strict=True))
    ]


def _label(name: str, translated: str) -> str:
    return f"`{name}`" if name == translated else f"{translated} `{name}`"


def _values(spec: list[Any], optional: bool, words: Info) -> str:
    kind, options = spec
    parts = [kind, *([words["optional"]] if optional else [])]
    if "min" in options:
        span = words["to"].format(options["min"], options["max"])
        parts.append(words["steps"].format(span, options["step"]) if "step" in options else span)
    if options.get("options"):
        parts = [" / ".join(options["options"])]
    if "default" in options:
        parts.append(words["default"].format(words["empty"] if options["default"] == "" else options["default"]))
    return "; ".join(parts)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def pages(info: Info) -> dict[Path, str]:
    """Return all help pages with updated tables."""
    made = {}
    for language, pattern in (("en", "{}.md"), ("zh", "{}/zh.md")):
        texts = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
        for name, node in _pack_nodes(info).items():
            path = DOCS / pattern.format(name)
            made[path] = page(path.read_text(encoding="utf-8"), language, node, texts[name])
    return made


def as_json(content: Info) -> str:
    """Return the text of a JSON file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    info = object_info.stored()
    (LOCALES / "en" / "nodeDefs.json").write_text(as_json(english(info)), encoding="utf-8")
    for path, text in pages(info).items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(REPO))


if __name__ == "__main__":
    main()
