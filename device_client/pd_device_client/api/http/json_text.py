"""JSON to and from bytes: strict input, safe output."""

import json
from collections.abc import Iterable
from typing import Any

from pd_core.errors import InvalidRequest

__all__ = ["json_bytes", "parse_object"]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
# Half a surrogate pair cannot be encoded as UTF-8, but it can be escaped.
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def json_bytes(value: object) -> bytes:
    """Return compact JSON."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        return _encode_ascii(value).encode()


def parse_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object, more strictly than `json.loads`.

    Raises:
        InvalidRequest: it is not UTF-8, JSON or an object, is nested too deeply, has a key twice,
            or holds a number that JSON does not allow.
    """
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not valid UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"the body is not JSON: {error.msg} (character {error.pos}); mend it there"
        ) from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InvalidRequest("the body holds a number that is too long") from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body is a JSON {type(value).__name__}; it must be an object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = _first_repeated(key for key, _ in pairs)
        raise InvalidRequest(f"the key {twice[:100]!a} stands twice in one object; leave one out")
    return result


def _first_repeated(keys: Iterable[str]) -> str:
    """Return the first repeated key, in one pass, as there may be millions of keys."""
    seen = set[str]()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    raise AssertionError("no key is repeated")


def _no_constant(name: str) -> float:
    raise InvalidRequest(f"{name} is not a number in JSON")
