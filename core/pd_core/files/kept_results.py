"""Results that are slow to compute, kept for the next process in the user's cache directory.

A small JSON file for each kind of result. A cache that cannot be read or written only costs time.
Every entry holds a digest over its key and value, so that an entry damaged on the disk is ignored.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from pd_core.errors import ConfigError
from pd_core.files.atomic import replace_text
from pd_core.host.user_folders import user_folder

__all__ = ["keep", "kept"]

logger = logging.getLogger(__name__)

_MOST = 256  # entries of a file; the oldest go first
_MOST_BYTES = 1 << 22  # a larger file is not one of ours


def kept(kind: str, key: object) -> Any:
    """Return the value kept under a key; None if there is none, or it was damaged.

    Args:
        kind: the file's name, such as "weights".
        key: everything that the result depends on, as JSON values.
    """
    file = _file(kind)
    entry = _read(file, say=True).get(_digest(key))
    if entry is None:
        return None
    if not isinstance(entry, dict) or entry.get("check") != _digest([key, entry.get("value")]):
        logger.warning("what %s held for this was damaged and is found anew", file)
        return None
    return entry["value"]


def keep(kind: str, key: object, value: object) -> None:
    """Keep a JSON value under a key; if that fails, log it at debug level."""
    file = _file(kind)
    entries = _read(file)
    entries.pop(_digest(key), None)
    entries[_digest(key)] = {"value": value, "check": _digest([key, value])}
    newest = dict([*entries.items()][-_MOST:])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps(newest))
    except (ConfigError, OSError) as error:
        logger.debug("%s cannot be kept: %s", kind, error)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(file: Path, *, say: bool = False) -> dict[str, Any]:
    content = None
    try:
        if not file.is_file():
            return {}
        if file.stat().st_size <= _MOST_BYTES:
            content = json.loads(file.read_text(encoding="utf-8"))
    except OSError:  # no folder, or none that this user may enter
        return {}
    except (ValueError, RecursionError):
        pass
    if isinstance(content, dict):
        return content
    if say:
        logger.warning("%s is damaged: what it held is found anew", file)
    return {}


def _file(kind: str) -> Path:
    # Without a home: below a device nothing can be read or written.
    root = user_folder("XDG_CACHE_HOME", ".cache") or Path(os.devnull)
    return root / "pd-device" / f"{kind}.json"
