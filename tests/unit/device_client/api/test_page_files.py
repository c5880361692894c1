"""The page's files by themselves: small, whole, free of what could load or run anything else."""

import re
from importlib import resources
from pathlib import Path

import pytest

from pd_device_client.api.page import page_files

MAX_LINES = 400
PAGE = Path(str(resources.files("pd_device_client") / "page"))
FILES = sorted(PAGE.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
IMPORT = re.compile(r'(?:from|import)\s*\(?"(\./[\w.]+)"')
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
    r"|importScripts|sendBeacon|WebSocket|EventSource|XMLHttpRequest|\.src\s*="
)


def test_files_are_found() -> None:
    assert {"index.html", "main.js", "base.css", "icon.svg"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_served_and_small(path: Path) -> None:
    served = page_files()
    name = "/" if path.name == "index.html" else f"/page/{path.name}"
    assert served[name].content == path.read_bytes()
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_what_exists_and_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check\n/**")
    for name in IMPORT.findall(text):
        assert (PAGE / name).is_file(), name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_and_ask_nobody_else(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert FORBIDDEN.findall(text) == []
    addresses = set(re.findall(r"https?://\w[\w./]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_every_script_is_used() -> None:
    used, waiting = set[str](), ["./main.js"]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += IMPORT.findall((PAGE / name).read_text(encoding="utf-8"))
    assert {Path(name).name for name in used} == {path.name for path in SCRIPTS}


def test_the_index_names_what_exists_and_nothing_inline() -> None:
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    for name in re.findall(r'(?:src|href)="/page/([^"]+)"', index):
        assert (PAGE / name).is_file(), name
    others = re.findall(r'(?:src|href)="(?!/page/|#)([^"]*)"', index)
    assert others == []
    assert not re.search(r'<style|\sstyle=|\son\w+="|<script(?![^>]*\ssrc=)', index)


def test_styles_load_nothing() -> None:
    for path in FILES:
        if path.suffix in {".css", ".svg"}:
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"url\(|@import|http", text), path.name
