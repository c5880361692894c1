"""The user's rules for which requests stay on this device."""

import re
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from pd_core.errors import ConfigError
from pd_core.settings.option import Option

__all__ = ["LocalOnlyRules"]

_MOST_RULES = 32
_MOST_PATTERN_CHARACTERS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


@dataclass(frozen=True, slots=True)
class LocalOnlyRules:
    """A request that one of them holds for is kept on this device, and so is its conversation.

    Raises:
        ConfigError: a rule without a name, with a name that another has, or with a wrong pattern.
    """

    local_only_patterns: Annotated[
        tuple[str, ...],
        Option(
            "Keep requests here whose text has this: NAME=REGEX; may be repeated.",
            "local-only-pattern",
        ),
    ] = ()
    local_only_labels: Annotated[
        tuple[str, ...],
        Option("Keep requests here that carry this label; may be repeated.", "local-only-label"),
    ] = ()
    local_only_above: Annotated[
        int | None, Ge(0), Option("Keep requests here whose prompt has more tokens than this.")
    ] = None

    def __post_init__(self) -> None:
        if len(self.local_only_patterns) > _MOST_RULES or len(self.local_only_labels) > _MOST_RULES:
            raise ConfigError(f"there are more than {_MOST_RULES} rules of one kind; join some")
        if len(self.patterns) < len(self.local_only_patterns):
            raise ConfigError("two of --local-only-pattern have the same name; rename one")
        for label in self.local_only_labels:
            if not _NAME.fullmatch(label):
                raise ConfigError(f"--local-only-label {label[:80]!a}: {_NAMES}")

    def __bool__(self) -> bool:
        """Whether there are any."""
        above = self.local_only_above is not None
        return bool(self.local_only_patterns or self.local_only_labels or above)

    @property
    def patterns(self) -> dict[str, str]:
        """The patterns by their names."""
        return dict(_named(rule) for rule in self.local_only_patterns)

    def of_label(self, label: str | None) -> str:
        """Return the name of the rule that holds for a label; "": none does."""
        return f"label {label}" if label in self.local_only_labels else ""

    def of_length(self, num_tokens: int) -> str:
        """Return the name of the rule that holds for a prompt of so many tokens; "": none does."""
        most = self.local_only_above
        return f"more than {most} tokens" if most is not None and num_tokens > most else ""


_NAMES = "a name has letters, digits, spaces and ._- and at most 64 of them"


def _named(rule: str) -> tuple[str, str]:
    name, sign, pattern = rule.partition("=")
    where = f"--local-only-pattern {rule[:80]!a}"
    if not sign or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: it must be NAME=REGEX, and {_NAMES}")
    if not pattern or len(pattern) > _MOST_PATTERN_CHARACTERS:
        raise ConfigError(
            f"{where}: the pattern has {len(pattern)} characters; give 1 to "
            f"{_MOST_PATTERN_CHARACTERS}"
        )
    try:
        empty = re.compile(pattern).search("")
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{where}: it is no regular expression of Python: {error}") from None
    if empty is not None:
        raise ConfigError(
            f"{where}: it is found in every text; to keep all requests here, give "
            "--privacy local-only"
        )
    return name, pattern
