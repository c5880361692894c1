"""No module imports itself by way of others, not even inside a function.

import-linter checks the layers between rooms; this checks the modules within a room too.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]


def _module_name(path: Path) -> str:
    """The import name of a file in a build root: the path below the root."""
    parts = path.relative_to(REPO).with_suffix("").parts[1:]
    return ".".join(parts).removesuffix(".__init__")


def _imports(source: str, modules: set[str]) -> set[str]:
    """The modules of ours that a module imports, anywhere in it."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= members & modules or {node.module}
    return named & modules


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


@pytest.mark.slow
def test_no_module_imports_itself_by_way_of_others() -> None:
    paths = {_module_name(path): path for path in REPO.glob("*/pd_*/**/*.py")}
    graph = {
        name: _imports(path.read_text(encoding="utf-8"), set(paths)) - {name}
        for name, path in paths.items()
    }
    assert len(graph) > 300
    assert _circle(graph) == []


@pytest.mark.parametrize(
    "source",
    ["import a", "from a import x", "def f():\n    from a import x", "from p import b, a"],
)
def test_a_circle_is_found_wherever_it_is_closed(source: str) -> None:
    modules = {"a", "b", "p.a", "p.b"}
    graph = {"a": _imports("import p.b\nimport b", modules), "b": set[str](), "p.a": {"a"}}
    graph["p.b"] = _imports(source, modules)
    assert _circle(graph)
