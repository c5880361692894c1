"""A request's body checked against a model; a refusal names the parameter at fault by its path."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pd_device_client.api.http.errors import Refusal

__all__ = ["Parameters", "validated"]

_P = TypeVar("_P", bound="Parameters")


class Parameters(BaseModel):
    """The base of all bodies: strict types, and unknown keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def validated(kind: type[_P], raw: Mapping[str, Any]) -> _P:
    """Parse a body.

    Raises:
        Refusal: the named parameter is missing or out of its range.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> Refusal:
    """Return a refusal that names the parameter at fault by its path."""
    found = max(error.errors(include_url=False, include_context=False), key=_nearness)
    path = _path(found["loc"])
    if found["type"] == "missing":
        return Refusal(f"{path} is missing; the request needs it", path)
    if found["type"] == "extra_forbidden":
        name = f"{_path(found['loc'][:-1])}.{ascii(found['loc'][-1])[1:-1][:80]}"
        return Refusal(
            f"{name} is not known here, and none of these keys is ignored, since one could be "
            "meant to keep words on this device; mend it or leave it out",
            name,
        )
    value = ascii(found["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return Refusal(f"{path} is {shown}: {found['msg'][:1].lower()}{found['msg'][1:]}", path)


def _nearness(found: Any) -> tuple[bool, int]:
    """Sort key for the errors of a union type: the type that the value matches best comes last.

    That is a type that fits with a value out of range, or else the error with the deepest path.
    """
    depth = len([part for part in found["loc"] if isinstance(part, int)])
    return not found["type"].endswith("_type"), depth


def _path(location: tuple[int | str, ...]) -> str:
    """Return a path such as "messages[0].role", without pydantic's names of union members."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isdecimal() or (
            part.isidentifier() and part not in {"str", "int", "float", "bool"}
        ):
            path += f".{part}" if path else part
    return path
