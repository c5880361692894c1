"""What every text file of the repository keeps to."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
CODE = {".py", ".sh", ".proto", ".toml", ".yml", ".yaml", ".json", ".html", ".js", ".css"}
SUFFIXES = CODE | {".md"}
NAMES = {"Makefile", "run", ".gitignore", ".dockerignore"}
ROOTS = ("core", "proto", "server", "device_client", "bench", "training")
FOLDERS = (*ROOTS, "tests", "docs", "deploy")
# Spelt in halves, so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
HOME_PATH = re.compile(r"(?<![\w.$}*-])/(wo" + r"rk|ro" + r"ot|ho" + r"me/[a-z]+|Us" + r"ers)/")
REGISTRY = re.compile(r"https?://[\w.-]*(py" + r"pi|pytorch\.org/whl|debian\.org/debian|npmjs)")


def _texts() -> Iterator[Path]:
    """Every text file that is ours."""
    tops = [path for path in REPO.iterdir() if path.is_file()]
    below = [path for folder in FOLDERS for path in (REPO / folder).rglob("*") if path.is_file()]
    for path in [*tops, *below, REPO / ".ci" / "run"]:
        named = path.suffix in SUFFIXES or path.name in NAMES or "Dockerfile" in path.name
        if named and "__pycache__" not in path.parts:
            yield path


def _offenders(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(REPO)}:{number}: {line.strip()[:80]}"
        for path in _texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_files_are_found() -> None:
    found = {path.relative_to(REPO).as_posix() for path in _texts()}
    assert {"README.md", "Makefile", ".ci/run", "core/pd_core/errors.py"} <= found


@pytest.mark.parametrize("line", ["x = '/wo" + "rk/main'", "cd /ro" + "ot/x", "# TO" + "DO later"])
def test_the_patterns_catch_what_they_should(line: str) -> None:
    assert HOME_PATH.search(line) or UNFINISHED.search(line)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (UNFINISHED, "finish it, or describe it among the limits"),
        (HOME_PATH, "a path of one machine means nothing on another"),
        (REGISTRY, "which package index to use is the reader's choice"),
    ],
    ids=["unfinished", "absolute-path", "registry"],
)
def test_no_text_contains(pattern: re.Pattern[str], why: str) -> None:
    assert not _offenders(pattern), why


def test_markdown_links_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
    broken = [
        f"{path.relative_to(REPO)} -> {target}"
        for path in _texts()
        if path.suffix == ".md"
        for target in link.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not broken


def test_pages_that_messages_and_comments_name_are_there() -> None:
    named = re.compile(r"\bdocs/[\w/.-]+\.md\b")
    missing = [
        f"{path.relative_to(REPO)} -> {page}"
        for path in _texts()
        if path.suffix != ".md" and path.relative_to(REPO).parts[0] != "tests"
        for page in named.findall(path.read_text(encoding="utf-8"))
        if not (REPO / page).exists()
    ]
    assert not missing


def test_make_help_lists_every_target() -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    phony = {t for line in re.findall(r"^\.PHONY: (.*)$", makefile, re.M) for t in line.split()}
    documented = set(re.findall(r"^([a-z0-9-]+):.*## \w", makefile, re.M))
    assert phony == documented


def test_every_page_that_is_named_by_its_path_is_there() -> None:
    named = re.compile(r"(?<![\w./-])docs/[\w/-]+\.md")
    texts = [path for path in _texts() if "decisions" not in path.parts]
    found = {name for path in texts for name in named.findall(path.read_text(encoding="utf-8"))}
    assert "docs/guides/vllm.md" in found
    assert [name for name in sorted(found) if not (REPO / name).is_file()] == []


def test_the_readme_s_layout_has_every_room() -> None:
    layout = (REPO / "README.md").read_text(encoding="utf-8").partition("## Layout")[2]
    layout = layout.partition("```")[2].partition("```")[0]
    parts = re.split(r"^\w+/ +(?=pd_)", layout, flags=re.MULTILINE)
    listed = {part.split()[0]: set(part.split()) for part in parts if part.startswith("pd_")}
    for package in [path for root in ROOTS for path in (REPO / root).glob("pd_*")]:
        rooms = {path.parent.name for path in package.glob("*/__init__.py")} - {"v1"}
        assert rooms <= listed[package.name], package.name


def test_examples_of_clients_use_the_address_that_the_device_listens_on() -> None:
    example = re.compile(r"""(?:base_url|api_base)\S{0,3}["' ](http://\S+?:\d+)""")
    texts = [*(REPO / "docs").rglob("*.md"), REPO / "README.md"]
    found = {
        (path.name, address)
        for path in texts
        for address in example.findall(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 3
    assert {address for _, address in found} == {"http://127.0.0.1:8088"}, found
