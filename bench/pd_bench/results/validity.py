"""Whether a replay can be trusted: promised exactness, and problems of the run."""

import itertools
from collections.abc import Iterable, Sequence

from pd_bench.results.result import Distribution, RequestRecord
from pd_core.errors import PdError

__all__ = [
    "LAG_SHARE",
    "early_end",
    "exactness_problems",
    "lag_problems",
    "promised_exactness",
    "sharing_problems",
]

LAG_SHARE = 0.1
"""A run is invalid when the p99 of its dispatch lag exceeds this share of the pace."""


def early_end(failure: PdError | None) -> str:
    """Return why a replay is partial: Ctrl-C, or a failure after which it could not go on."""
    if failure is None:
        return "interrupted: requests that had not ended are missing"
    return f"ended early: {failure}; what was to come then is missing"


def lag_problems(records: Iterable[RequestRecord], pace_s: float) -> list[str]:
    """Return the schemes whose requests were sent too late to trust their times, in words."""
    problems = []
    by_scheme = sorted(records, key=lambda r: r.scheme)
    for scheme, own in itertools.groupby(by_scheme, key=lambda r: r.scheme):
        lag = Distribution.of(r.dispatch_lag_s for r in own).p99
        if lag is not None and lag > LAG_SHARE * pace_s:
            problems.append(
                f"{scheme}: the p99 of the dispatch lag is {lag * 1000:.1f} ms, more than "
                f"{LAG_SHARE:g} of the pace: this machine could not send the requests in time"
            )
    return problems


def sharing_problems(num_processors: float) -> list[str]:
    """Return a problem if a server and a client on this machine have less than a core each."""
    if num_processors >= 2:
        return []
    shared = "one core" if num_processors == 1 else f"{num_processors:g} of a core's time"
    return [
        f"server and client share {shared}: each waits for the other, so no time can be trusted; "
        "give them two cores or more"
    ]


def promised_exactness(records: Iterable[RequestRecord]) -> str:
    """Return the least that any request was promised: "identical", "consistent" or "text"."""
    promised = {r.exactness for r in records}
    if "text" in promised:
        return "text"
    return "identical" if promised <= {"identical"} else "consistent"


def exactness_problems(records: Sequence[RequestRecord]) -> list[str]:
    """Return a problem if a row's answers differ although identical ones were promised.

    Failed requests have no whole answer; they are counted elsewhere and excuse no difference.
    """
    if promised_exactness(records) != "identical":
        return []
    answers: dict[int, set[str]] = {}
    for r in records:
        if r.error is None:
            answers.setdefault(r.id, set()).add(r.output_sha256)
    differing = sum(len(a) > 1 for a in answers.values())
    if not differing:
        return []
    return [
        f"identical answers were promised, but those of {differing} of {len(answers)} rows differ "
        "between schemes or repeats"
    ]
