"""No settings of ours show a secret, however they are printed."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

REPO = Path(__file__).parents[3]
SECRET = "sesame-7f3a9c"
_NAMED = re.compile(r"(^|_)(key|secret|password|token|credential)$")


def _modules() -> list[str]:
    """Every module that can hold settings: commands, bench and device whole, the server's own."""
    found = [*REPO.glob("bench/pd_bench/**/*.py"), *REPO.glob("device_client/**/*.py")]
    found += REPO.glob("server/pd_server/*.py")
    parts = (path.relative_to(REPO).with_suffix("").parts[1:] for path in found)
    names = (".".join(part).removesuffix(".__init__") for part in parts)
    return sorted(name for name in names if not name.endswith("__main__"))


def _types(cls: Any) -> dict[str, Any]:
    if issubclass(cls, BaseModel):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    hints = inspect.get_annotations(cls, eval_str=True)
    return {field.name: hints.get(field.name, field.type) for field in dataclasses.fields(cls)}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) or (kind,)


def _secrets(cls: Any) -> list[str]:
    """The fields that hold a secret: a text whose name says so, or what pydantic hides itself."""
    return [
        name
        for name, kind in _types(cls).items()
        if SecretStr in _alternatives(kind) or (_NAMED.search(name) and str in _alternatives(kind))
    ]


def _with_secrets(cls: Any, names: list[str]) -> Any:
    """An object of the class that holds the secret; nothing else of it is checked."""
    kinds = _types(cls)
    values = {name: SECRET if name in names else None for name in kinds}
    wrapped = {name: SecretStr(SECRET) for name in names if SecretStr in _alternatives(kinds[name])}
    if issubclass(cls, BaseModel):
        return cls.model_construct(**(values | wrapped))
    made = object.__new__(cls)
    for name, value in (values | wrapped).items():
        object.__setattr__(made, name, value)
    return made


WITH_SECRETS = {
    f"{cls.__module__}.{cls.__name__}": (cls, names)
    for module in map(importlib.import_module, _modules())
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if cls.__module__ == module.__name__
    and (dataclasses.is_dataclass(cls) or issubclass(cls, BaseModel))
    and (names := _secrets(cls))
}


def test_the_known_ones_are_found() -> None:
    assert {
        "pd_bench.endpoint.settings.EndpointSettings",
        "pd_device_client.cloud.address.CloudAddress",
    } <= WITH_SECRETS.keys()


@pytest.mark.parametrize("name", sorted(WITH_SECRETS))
def test_a_secret_is_never_shown(name: str) -> None:
    cls, names = WITH_SECRETS[name]
    made = _with_secrets(cls, names)
    for text in (repr(made), str(made), f"{made}", repr([made])):
        assert SECRET not in text, f"{name} shows {', '.join(names)}"
