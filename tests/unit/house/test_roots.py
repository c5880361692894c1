"""The build roots on disk are the ones every tool is told of.

A misspelt root is dropped from the wheel, from mypy and from coverage without a word.
"""

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[3]
PROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
TOOLS: dict[str, Any] = PROJECT["tool"]
PACKAGES = sorted(path for path in REPO.glob("*/pd_*") if path.is_dir())
ROOTS = sorted({path.parent.name for path in PACKAGES})
MAX_MODULE_LINES = 400


def _modules() -> list[Path]:
    """Every module written by hand."""
    return [
        path
        for package in PACKAGES
        for path in sorted(package.rglob("*.py"))
        if "_pb2" not in path.name
    ]


def test_packages_are_found_on_disk() -> None:
    assert {"core", "proto", "server", "device_client", "bench"} <= set(ROOTS)
    assert [f"pd_{path.parent.name}" for path in PACKAGES] == [path.name for path in PACKAGES]


@pytest.mark.parametrize(
    ("where", "listed"),
    [
        ("tool.hatch.build.dev-mode-dirs", TOOLS["hatch"]["build"]["dev-mode-dirs"]),
        ("tool.mypy.mypy_path", TOOLS["mypy"]["mypy_path"]),
        ("tool.coverage.run.source + proto", [*TOOLS["coverage"]["run"]["source"], "proto"]),
        ("tool.mypy.files - tests", [f for f in TOOLS["mypy"]["files"] if f != "tests"]),
    ],
)
def test_tools_know_every_root(where: str, listed: list[str]) -> None:
    assert sorted(listed) == ROOTS, f"{where} in pyproject.toml disagrees with the folders"


def test_the_wheel_holds_every_package() -> None:
    listed = TOOLS["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(listed) == [path.relative_to(REPO).as_posix() for path in PACKAGES]


def test_import_rules_cover_every_package() -> None:
    listed = TOOLS["importlinter"]["root_packages"]
    assert sorted(listed) == sorted(path.name for path in PACKAGES)


def test_every_command_names_a_module_that_exists() -> None:
    for command, target in PROJECT["project"]["scripts"].items():
        module, _, function = target.partition(":")
        files = [REPO / root / (module.replace(".", "/") + ".py") for root in ROOTS]
        found = [path for path in files if path.is_file()]
        assert found, f"{command} starts {module}, which no build root holds"
        tree = ast.parse(found[0].read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in defined, f"{command} calls {target}, which is not defined"
        assert (found[0].parent / "__main__.py").is_file(), f"python -m for {command} is missing"


def test_vllm_s_entry_point_names_what_exists() -> None:
    (target,) = PROJECT["project"]["entry-points"]["vllm.general_plugins"].values()
    module, _, function = target.partition(":")
    package = REPO / "server" / module.replace(".", "/") / "__init__.py"
    tree = ast.parse(package.read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_packages_are_regular_and_roots_are_not() -> None:
    for package in PACKAGES:
        folders = {path.parent for path in package.rglob("*.py")}
        bare = [str(f.relative_to(REPO)) for f in folders if not (f / "__init__.py").is_file()]
        assert not bare, f"no __init__.py in {bare}"
        assert (package / "py.typed").is_file(), f"{package.name} has no py.typed"
    for root in ROOTS:
        importable = [path.name for path in (REPO / root).glob("*.py")]
        assert not importable, f"{root}/ is a build root, no package: move {importable} into it"


def test_modules_are_short() -> None:
    sizes = {
        path.relative_to(REPO).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in _modules()
    }
    offenders = {name: lines for name, lines in sizes.items() if lines > MAX_MODULE_LINES}
    assert not offenders, f"over {MAX_MODULE_LINES} lines; more than one noun? {offenders}"


def test_no_module_is_a_catch_all() -> None:
    names = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}
    offenders = [p.relative_to(REPO).as_posix() for p in _modules() if p.stem in names]
    assert not offenders, "name a module after one noun"
