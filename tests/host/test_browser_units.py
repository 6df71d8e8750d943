"""The unit tests of the JavaScript (tests/host/js), in Chromium and without a server: the modules need a DOM."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser, chromium

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM")

REPO = Path(__file__).resolve().parents[2]
UNITS = REPO / "tests" / "host" / "js"
SITE = "http://units.invalid"
TESTS = [
    (path.name, name)
    for path in sorted(UNITS.glob("*_units.js"))
    for name in re.findall(r"^export (?:async )?function (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    def answer(route: Any) -> None:
        path = route.request.url.removeprefix(SITE)
        folder, _, name = path.lstrip("/").partition("/")
        file = {"js": REPO / "js", "units": UNITS}.get(folder, UNITS) / name
        if path == "/":
            route.fulfill(content_type="text/html", body="<!doctype html><body></body>")
        elif file.is_file():
            route.fulfill(content_type="text/javascript", body=file.read_text(encoding="utf-8"))
        else:
            route.fulfill(status=404)

    with browser() as found:
        page = found.new_page()
        page.route(f"{SITE}/**", answer)
        page.goto(f"{SITE}/")
        yield page


@pytest.mark.parametrize(("file", "name"), TESTS, ids=[name for _, name in TESTS])
def test_unit(page: Any, file: str, name: str) -> None:
    page.evaluate("async ([file, name]) => { await (await import(`/units/${file}`))[name]() }", [file, name])
