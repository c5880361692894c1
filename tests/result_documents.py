"""Hand-made results: every instant is a round number, so that figures can be told beforehand."""

from collections.abc import Sequence

from pd_bench.results.result import (
    CloudTotals,
    CutRows,
    Distribution,
    EqualRows,
    RequestRecord,
    ResultDocument,
    SchemeResult,
)
from pd_bench.results.series import CapacityCurve, CapacityPoint, LoadPoint, Timeline

PACE_S = 0.1
CLOUD = CloudTotals(tokens_generated=60, busy_s=2.0, kv_byte_s=1e6, kv_bytes_peak=4096)


def record(
    row: int,
    scheme: str,
    *,
    ttft_s: float = 1.0,
    gaps_s: Sequence[float] = (0.1, 0.1),
    cloud_tokens: int = 3,
    repeat: int = 0,
    error: str | None = None,
) -> RequestRecord:
    """A request whose tokens are shown at the instants that TTFT and gaps say."""
    shown = [ttft_s]
    for gap_s in gaps_s:
        shown.append(shown[-1] + gap_s)
    return RequestRecord(
        id=row,
        line=row + 2,
        repeat=repeat,
        scheme=scheme,
        arrival_s=0.5 * row,
        dispatch_lag_s=0.001,
        prompt_tokens=100 + row,
        output_tokens=len(shown),
        planned_tokens=cloud_tokens,
        handoff_position=None,
        cloud_tokens=cloud_tokens,
        cloud_tokens_generated=cloud_tokens,
        device_tokens=len(shown) - cloud_tokens,
        disagreed=0,
        exactness="identical",
        ttft_s=ttft_s,
        tpot_s=(shown[-1] - shown[0]) / (len(shown) - 1) if len(shown) > 1 else None,
        e2e_s=shown[-1],
        largest_gap_s=max(gaps_s, default=None),
        handoff_gap_s=None,
        shown_at_s=tuple(shown),
        output_sha256="0" * 64,
        error=error,
    )


def timeline(of: RequestRecord) -> Timeline:
    """A request token by token: the cloud's tokens were there half a second before."""
    cloud = of.cloud_tokens
    return Timeline(
        id=of.id,
        scheme=of.scheme,
        repeat=of.repeat,
        prompt_tokens=of.prompt_tokens,
        arrived_at_s=tuple(max(at - 0.5, 0.0) for at in of.shown_at_s),
        shown_at_s=of.shown_at_s,
        sources="c" * cloud + "d" * (len(of.shown_at_s) - cloud),
    )


def document(records: Sequence[RequestRecord], **changes: object) -> ResultDocument:
    """A result of these requests."""
    schemes = list(dict.fromkeys(r.scheme for r in records))
    rows = len({r.id for r in records})
    given: dict[str, object] = {
        "trace": "made <up> & more.csv",
        "trace_sha256": "ab" * 32,
        "fidelity": "fleet",
        "arrivals": "trace",
        "pace_s": PACE_S,
        "exactness": "identical",
        "valid": True,
        "labels": ("devices: emulated, slow (a test)",),
        "dispatch_lag_s": Distribution.of(r.dispatch_lag_s for r in records),
        "cut_rows": CutRows(
            rows=rows,
            prompt=1,
            output=2,
            max_prompt_tokens=900,
            max_output_tokens=100,
            max_context_tokens=1000,
        ),
        "equal_rows": EqualRows(equal=rows, rows=rows),
        "profiles": {"device": {"name": "slow", "decode_s": 0.05, "nothing": None}},
        "settings": {"limit": rows},
        "versions": {"python": "3.11"},
        "hardware": {"cpu": "a test"},
        "seed": 0,
        "schemes": {
            s: SchemeResult.of([r for r in records if r.scheme == s], PACE_S, CLOUD, 10)
            for s in schemes
        },
        "requests": tuple(records),
    }
    return ResultDocument.model_validate(given | changes)


def full_document() -> ResultDocument:
    """A result with everything a report can show, of thirty rows in three schemes."""
    records = [
        record(row, scheme, ttft_s=ttft_s * (1 + row / 10), cloud_tokens=cloud_tokens)
        for row in range(30)
        for scheme, ttft_s, cloud_tokens in (
            ("device-only", 2.0, 0),
            ("cloud-only", 0.2, 3),
            ("pd-device", 0.2, 1),
        )
    ]
    load = (LoadPoint(at_s=0.0, running=1, waiting=0), LoadPoint(at_s=1.0, running=3, waiting=2))
    points = (CapacityPoint(rate_per_s=1.0, kept=1.0), CapacityPoint(rate_per_s=4.0, kept=0.5))
    curve = CapacityCurve(regime="slots", capacity_per_s=2.0, points=points)
    return document(
        records,
        timelines=tuple(timeline(r) for r in records if r.id in (0, 9, 19, 29)),
        cloud_load={"cloud-only": load, "pd-device": load},
        capacity={"pd-device": (curve,)},
    )
