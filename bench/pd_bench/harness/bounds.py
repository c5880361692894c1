"""Bounds of a measurement's inputs: beyond them it would fail or never end."""

from collections.abc import Mapping

from pd_core.errors import ConfigError, EngineError, PdError

__all__ = [
    "WARM_UP_TOKENS",
    "check_between",
    "check_counts",
    "check_pace",
    "check_timeout",
    "warm_up_failure",
]

WARM_UP_TOKENS = 16
"""Tokens of a warm-up's answer."""

_PACE_S = (0.001, 60.0)  # a timer's grain; a word a minute
_TIMEOUT_S = (0.1, 1e6)  # a round trip far away; eleven days


def check_between(option: str, value: float, least: float, most: float, unit: str = "") -> None:
    """Refuse a number out of its bounds; NaN is.

    Raises:
        ConfigError: the message names the option and the bounds.
    """
    if not least <= value <= most:
        raise ConfigError(
            f"{option} is {value}; it must lie between {least:g} and {most:g}"
            f"{' ' if unit else ''}{unit}"
        )


def check_counts(counts: Mapping[str, int | None]) -> None:
    """Refuse options that count something and are below 1; None is one not given.

    Raises:
        ConfigError: the message names the option.
    """
    for option, count in counts.items():
        if count is not None and count < 1:
            raise ConfigError(f"{option} is {count}; it must be 1 or more")


def check_pace(pace_s: float) -> None:
    """Refuse a pace that no controller could keep, or that no run would live to see.

    Raises:
        ConfigError: it is out of bounds.
    """
    check_between("--pace", pace_s, *_PACE_S, "seconds")


def check_timeout(timeout_s: float, pace_s: float = 0.0) -> None:
    """Refuse a timeout within which not even a warm-up's tokens can be shown.

    Args:
        timeout_s: of a request.
        pace_s: at which its tokens are shown; 0: as they come.

    Raises:
        ConfigError: it is out of bounds.
    """
    check_between("--timeout", timeout_s, *_TIMEOUT_S, "seconds")
    shown_s = (WARM_UP_TOKENS - 1) * pace_s
    if timeout_s <= shown_s:
        raise ConfigError(
            f"--timeout is {timeout_s}; at --pace {pace_s:g} the {WARM_UP_TOKENS} tokens of a "
            f"warm-up alone take {shown_s:g} seconds"
        )


def warm_up_failure(error: str, timeout_s: float, scheme: str = "") -> PdError:
    """Return what a failed warm-up means.

    Args:
        error: of its record.
        timeout_s: of a request.
        scheme: that it ran in, where there are several.

    Returns:
        A ConfigError if the timeout ended it, as the user can change that.
    """
    which = f"the warm-up request{' of ' if scheme else ''}{scheme}"
    if error.startswith(f"{TimeoutError.__name__}:"):
        return ConfigError(
            f"{which} had not ended within {timeout_s:g} s; give it longer with --timeout, or see "
            "what keeps it"
        )
    return EngineError(f"{which} failed: {error}")
