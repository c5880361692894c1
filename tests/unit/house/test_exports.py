"""Where a module says what is public, it says all of it, sorted."""

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
# Module-level names that are plumbing by convention.
PLUMBING = {"logger", "app"}


def _exports(tree: ast.Module) -> list[str] | None:
    """The names in `__all__`, or None where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            assert isinstance(node.value, ast.List), "__all__ is a plain list"
            return [ast.literal_eval(item) for item in node.value.elts]
    return None


def _public_names(tree: ast.Module) -> set[str]:
    """What the module defines at its top level under a public name."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")} - PLUMBING


def _imported_names(tree: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff sorts them."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


MODULES = sorted(path for path in REPO.glob("*/pd_*/**/*.py") if "_pb2" not in path.name)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(REPO).as_posix())
def test_all_is_complete_and_sorted(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    exports = _exports(tree)
    public = _public_names(tree)
    if path.name == "__init__.py":
        # A package's public names are the ones it gathers.
        public |= {name for name in _imported_names(tree) if not name.startswith("_")}
    if exports is None:
        return
    assert len(set(exports)) == len(exports), "a name stands twice in __all__"
    assert set(exports) >= public, f"missing in __all__: {sorted(public - set(exports))}"
    known = public | _imported_names(tree)
    assert set(exports) <= known, f"in __all__ and not defined: {sorted(set(exports) - known)}"
    assert exports == sorted(exports, key=_sort_key), "__all__ is not sorted"


def test_the_shared_vocabulary_declares_its_exports() -> None:
    for name in ("errors", "generation", "profiles", "sampling_params"):
        tree = ast.parse((REPO / "core" / "pd_core" / f"{name}.py").read_text(encoding="utf-8"))
        assert _exports(tree), f"pd_core.{name} has no __all__"
