"""The file of named keys: their hashes and quotas, never the keys themselves.

[keys.anna]
sha256 = "60ed12..."            # or a list, while one key takes the place of another
requests-per-minute = 60        # each bound may be left out
tokens-per-day = 200_000
streams = 4
"""

import re
import tomllib
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pd_core.errors import ConfigError
from pd_core.files.text_file import decoded
from pd_server.keys.quota import Quota

__all__ = ["NamedKey", "digest", "named_keys", "read_key_file"]

_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_BOUNDS = {
    "requests-per-minute": "requests_per_minute",
    "tokens-per-day": "tokens_per_day",
    "streams": "streams",
}
_MOST = 10**15


@dataclass(frozen=True, slots=True)
class NamedKey:
    """One key by name.

    Attributes:
        name: as logs and metrics show it.
        digests: sha256 of each key that is its, 32 bytes each.
        quota: what it may use.
    """

    name: str
    digests: tuple[bytes, ...]
    quota: Quota = field(default_factory=Quota)


def digest(key: bytes) -> bytes:
    """Return the hash of a key.

    A plain one: keys are random (`deploy/make-key.sh`), so no dictionary finds them, and a slow
    hash would let anyone who sends wrong keys keep the server busy.
    """
    return sha256(key).digest()


def named_keys(path: Path | None, one: str | None) -> tuple[NamedKey, ...]:
    """Return the keys of a file and the single one, which is named "default".

    Raises:
        ConfigError: the file cannot be used; the message names the entry.
    """
    found = () if path is None else read_key_file(path)
    if one is not None:
        found += (NamedKey("default", (digest(one.encode()),)),)
    names: dict[str, None] = {}
    owners: dict[bytes, str] = {}
    for each in found:
        if each.name in names:
            raise ConfigError(
                f"two keys are named {each.name!r}; rename the one in the file {path}, or leave "
                "out the single key"
            )
        names[each.name] = None
        for one_digest in each.digests:
            if one_digest in owners:
                raise ConfigError(
                    f"{owners[one_digest]!r} and {each.name!r} in {path} have one key; give each "
                    "its own (deploy/make-key.sh)"
                )
            owners[one_digest] = each.name
    return found


def read_key_file(path: Path) -> tuple[NamedKey, ...]:
    """Read a file of named keys.

    Raises:
        ConfigError: it cannot be read, or an entry is wrong; the message names the entry.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"the keys file {path} has more than {_MAX_BYTES} bytes")
        loaded = tomllib.loads(decoded(content))
    except OSError as error:
        raise ConfigError(
            f"the keys file {path} cannot be read ({error.strerror}); give a readable one"
        ) from error
    except (ValueError, RecursionError) as error:  # tomllib's errors are ValueErrors
        raise ConfigError(f"the keys file {path} is not TOML: {error}") from None
    keys = loaded.pop("keys", None)
    if loaded or not isinstance(keys, dict) or not keys:
        raise ConfigError(
            f"the keys file {path} must hold one table [keys.NAME] for each key, and nothing else"
        )
    return tuple(_named(path, name, entry) for name, entry in keys.items())


def _named(path: Path, name: str, entry: Any) -> NamedKey:
    where = f"[keys.{name}] in {path}"
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: a name has 1 to 64 letters, digits, dots, dashes and underscores"
        )
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is no table; give it sha256 = ...")
    unknown = entry.keys() - _BOUNDS.keys() - {"sha256"}
    if unknown:
        raise ConfigError(
            f"{where} has an unknown setting {sorted(unknown)[0]!r}; known are sha256, "
            f"{', '.join(_BOUNDS)}"
        )
    hashes = entry.get("sha256")
    hashes = [hashes] if isinstance(hashes, str) else hashes
    if not isinstance(hashes, list) or not hashes or not all(map(_is_digest, hashes)):
        raise ConfigError(
            f"{where}: sha256 must be the key's hash, 64 hexadecimal digits, or a list of hashes "
            "(deploy/make-key.sh makes both)"
        )
    bounds = {}
    for setting, bound in _BOUNDS.items():
        value = entry.get(setting)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
            raise ConfigError(f"{where}: {setting} must be a whole number of 1 or more")
        bounds[bound] = value
    return NamedKey(name, tuple(map(bytes.fromhex, hashes)), Quota(**bounds))


def _is_digest(text: Any) -> bool:
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None
