"""`__all__` is sorted, names what exists, and holds whatever another module takes."""

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]


def _module_name(path: Path) -> str:
    """The import name of a file in a build root: the path below the root."""
    parts = path.relative_to(REPO).with_suffix("").parts[1:]
    return ".".join(parts).removesuffix(".__init__")


def _exports(tree: ast.Module) -> list[str] | None:
    """The names in `__all__`, or None where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            assert isinstance(node.value, ast.List), "__all__ is a plain list"
            return [ast.literal_eval(item) for item in node.value.elts]
    return None


def _defined(tree: ast.Module) -> set[str]:
    """Every name that the module's top level binds, by definition or by import."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def _sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff sorts them."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


TREES = {
    _module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(REPO.glob("*/pd_*/**/*.py"))
    if "_pb2" not in path.name
}
WITH_EXPORTS = sorted(name for name, tree in TREES.items() if _exports(tree) is not None)


@pytest.mark.slow
@pytest.mark.parametrize("module", WITH_EXPORTS)
def test_all_is_sorted_and_names_what_exists(module: str) -> None:
    exports = _exports(TREES[module])
    assert exports is not None
    assert len(set(exports)) == len(exports), "a name stands twice in __all__"
    assert set(exports) <= _defined(TREES[module]), "a name in __all__ is not defined"
    assert not [name for name in exports if name.startswith("_")]
    assert exports == sorted(exports, key=_sort_key), "__all__ is not sorted"


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(TREES))
def test_modules_take_only_public_names_of_others(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if not isinstance(node, ast.ImportFrom) or node.module not in TREES:
            continue
        exports = _exports(TREES[node.module])
        for alias in node.names:
            assert not alias.name.startswith("_"), f"{node.module}.{alias.name} is private"
            if f"{node.module}.{alias.name}" not in TREES and exports is not None:
                assert alias.name in exports, f"{node.module}.{alias.name} is not in its __all__"


@pytest.mark.parametrize(
    "package", ["pd_core", "pd_server", "pd_device_client", "pd_bench", "pd_training"]
)
def test_modules_declare_what_is_public(package: str) -> None:
    silent = [
        name
        for name, tree in TREES.items()
        if name.startswith(f"{package}.")
        and name not in WITH_EXPORTS
        and any(not private.startswith("_") for private in _defined(tree))
        and not name.endswith("__main__")
    ]
    assert not silent, f"no __all__ in {silent}"
