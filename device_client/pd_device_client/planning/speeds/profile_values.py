"""A device's profile as plain values, checked when they come from a file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pd_core.errors import ConfigError
from pd_core.files.text_file import read_text_file
from pd_device_client.planning.speeds.profiles import DEVICE_PROFILES, SpeedProfile, device_profile

__all__ = ["profile_from", "profile_values", "read_device_profile"]

_LEAST_S = 1e-9  # below this no machine computes a token
_MOST_S = 1000.0  # a quarter of an hour for a token
_BOUNDS = {
    "prefill_b_s": (_LEAST_S, _MOST_S),
    "decode_s": (_LEAST_S, _MOST_S),
    "prefill_a_s": (0.0, _MOST_S),
    "prefill_c_s": (0.0, 1.0),
    "decode_l_s": (0.0, 1.0),
    "spread": (0.0, 10.0),
}
_OPTIONAL = {each.name for each in fields(SpeedProfile) if each.default == 0.0}


def profile_values(profile: SpeedProfile) -> dict[str, Any]:
    """Return a profile as JSON values."""
    return asdict(profile)


def profile_from(values: object, what: str, **named: str) -> SpeedProfile:
    """Return the profile of JSON values.

    Args:
        values: as `profile_values` returns them.
        what: names them in an error.
        named: name and source, if the values' own do not count.

    Raises:
        ConfigError: a speed is missing, negative, zero, no number or absurd; the message names it.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} is no device profile: it must be an object with decode_s, ...")
    words = {name: named.get(name, values.get(name, "a file")) for name in ("name", "source")}
    if not all(isinstance(word, str) for word in words.values()):
        raise ConfigError(f"{what}: name and source must be texts")
    speeds: dict[str, float] = {}
    for field, (least, most) in _BOUNDS.items():
        if field not in values and field in _OPTIONAL:
            continue
        speed = values.get(field)
        is_number = isinstance(speed, int | float) and not isinstance(speed, bool)
        if speed is None or not is_number or not least <= speed <= most:  # NaN too
            raise ConfigError(f"{what}: {field} is {speed}; it must lie from {least:g} to {most:g}")
        speeds[field] = float(speed)
    return SpeedProfile(str(words["name"]), str(words["source"]), **speeds)


def read_device_profile(name: str) -> SpeedProfile:
    """Return the device profile of a name, or of a file that `pd-device calibrate` wrote.

    Raises:
        ConfigError: there is neither (the known names are listed), or the file holds no profile.
    """
    if name in DEVICE_PROFILES or not Path(name).is_file():
        return device_profile(name)
    try:
        values = json.loads(read_text_file(Path(name)))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the device profile {name} is not JSON: {error}") from None
    inner = values.get("profile", values) if isinstance(values, dict) else values
    return profile_from(inner, f"the device profile {name}")
