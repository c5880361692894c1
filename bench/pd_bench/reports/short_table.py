"""The figures that say most, as a Markdown table: the README's."""

import re
from collections.abc import Callable

from pd_bench.results.result import Distribution, ResultDocument, SchemeResult

__all__ = ["short_table"]

_NAMES = {"pd-device": "P/D-Device"}
_STANDS_IN = re.compile("emulated|simulated|throttled")
_ALL = {2: "both", 3: "all three"}


def short_table(document: ResultDocument) -> str:
    """Return a Markdown table of a result; P/D-Device's figures are bold.

    Below it stands what is emulated or throttled, and why the result is not to be quoted.
    """
    schemes = document.schemes
    rows = [["", *(_NAMES.get(name, name) for name in schemes)]]
    for label, cell in _ROWS:
        rows.append([label, *(_cell(name, cell(scheme)) for name, scheme in schemes.items())])
    equal = document.equal_rows
    last = [""] * (len(schemes) - 1) + [f"**{equal.equal} of {equal.rows}**"]
    number = _ALL.get(len(schemes), f"all {len(schemes)}")
    rows.append([f"rows with the same answer in {number}", *last])
    header, *lines = (f"| {' | '.join(row)} |".replace("  ", " ") for row in rows)
    return "\n".join([header, "|" + "---|" * (1 + len(schemes)), *lines, *_below(document)])


def _below(document: ResultDocument) -> list[str]:
    said = [f"- {label}" for label in document.labels if _STANDS_IN.search(label)]
    invalid = [f"- INVALID: {why}" for why in document.invalid_because]
    return ["", *said, *invalid] if said or invalid else []


def _cell(scheme: str, text: str) -> str:
    return f"**{text}**" if text and scheme in _NAMES else text


def _ms(distribution: Distribution, first: str, second: str) -> str:
    values = [getattr(distribution, name) for name in (first, second)]
    known = [f"{value * 1000:.0f}" for value in values if value is not None]
    return f"{' / '.join(known)} ms" if known else ""


_ROWS: tuple[tuple[str, Callable[[SchemeResult], str]], ...] = (
    ("TTFT p50 / p99", lambda s: _ms(s.ttft_s, "p50", "p99")),
    ("largest gap p50 / p99", lambda s: _ms(s.largest_gap_s, "p50", "p99")),
    ("gap at the handoff p50 / max", lambda s: _ms(s.handoff_gap_s, "p50", "max")),
    ("tokens the cloud made", lambda s: str(s.cloud_tokens_generated)),
)
