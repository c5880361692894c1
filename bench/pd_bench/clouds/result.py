"""The result of `pd-bench cloud`: one JSON document, engines side by side."""

from collections.abc import Sequence
from statistics import median
from typing import Self

from pydantic import Field

from pd_bench.clouds.closed_loop import CloudAnswer
from pd_bench.results.document_part import DocumentPart
from pd_bench.results.quantiles import PERCENTILE_METHOD
from pd_bench.results.result import CutRows, Distribution, EqualRows

__all__ = [
    "CloudDocument",
    "CloudPass",
    "CloudScheme",
    "EngineResult",
    "KvBlocks",
    "equal_rows",
    "throughput_ratio",
]


class CloudPass(DocumentPart):
    """One pass of one scheme over all rows, on a server that has just started.

    Attributes:
        repeat: number of the pass, from 0.
        tokens: tokens received, including those of failed requests.
        wall_s: seconds from the first request to the last end.
        requests_per_s: whole answers over wall_s.
        server_cpu_s: CPU seconds of the server's processes; None if the system does not report it.
    """

    repeat: int
    requests: int
    failed: int
    tokens: int
    wall_s: float
    requests_per_s: float
    tokens_per_s: float
    server_cpu_s: float | None

    @classmethod
    def of(cls, repeat: int, answers: Sequence[CloudAnswer], server_cpu_s: float | None) -> Self:
        """Summarise a pass."""
        failed = sum(a.error is not None for a in answers)
        tokens = sum(a.num_tokens for a in answers)
        wall_s = max(a.ended_at_s for a in answers)
        return cls(
            repeat=repeat,
            requests=len(answers),
            failed=failed,
            tokens=tokens,
            wall_s=wall_s,
            requests_per_s=(len(answers) - failed) / wall_s,
            tokens_per_s=tokens / wall_s,
            server_cpu_s=server_cpu_s,
        )


class CloudScheme(DocumentPart):
    """One scheme on one engine.

    Attributes:
        requests: number of requests in all passes.
        requests_per_s: median over the passes.
        tokens_per_s: median over the passes.
        ttft_s: TTFT seen by the client, of every request in all passes that got a token.
        server_cpu_s_per_request: over all passes; None if the system does not report it.
        errors: the errors of failed requests, each once.
    """

    requests: int
    failed: int
    tokens: int
    requests_per_s: float
    tokens_per_s: float
    ttft_s: Distribution
    server_cpu_s_per_request: float | None
    passes: tuple[CloudPass, ...]
    errors: tuple[str, ...] = ()

    @classmethod
    def of(cls, passes: Sequence[CloudPass], answers: Sequence[CloudAnswer]) -> Self:
        """Summarise all passes and their answers."""
        num_requests = sum(p.requests for p in passes)
        cpu_s = [p.server_cpu_s for p in passes if p.server_cpu_s is not None]
        return cls(
            requests=num_requests,
            failed=sum(p.failed for p in passes),
            tokens=sum(p.tokens for p in passes),
            requests_per_s=median(p.requests_per_s for p in passes),
            tokens_per_s=median(p.tokens_per_s for p in passes),
            ttft_s=Distribution.of(a.ttft_s for a in answers),
            server_cpu_s_per_request=(
                sum(cpu_s) / num_requests if len(cpu_s) == len(passes) else None
            ),
            passes=tuple(passes),
            errors=tuple(sorted({a.error for a in answers if a.error is not None})),
        )


class KvBlocks(DocumentPart):
    """KV blocks in a cache of the same size, for two models that differ only in SkipV1.

    Attributes:
        cache_bytes: size of both caches.
        plain: blocks with multi-head attention.
        skip_v1: blocks with SkipV1Former.
        ratio: skip_v1 over plain; the papers' formula, (4 L) / (3 L + 1), is `by_formula`.
    """

    cache_bytes: int
    layers: int
    plain: int
    skip_v1: int
    ratio: float
    by_formula: float


class EngineResult(DocumentPart):
    """One engine.

    Attributes:
        versions: versions of its interpreter's packages.
        numerics_id: as reported by its server.
        command: the server's own part of the command line, without addresses.
        start_s: from starting the process until it was ready.
        schemes: by name.
        kv_blocks: None if not requested.
    """

    versions: dict[str, str]
    numerics_id: str
    command: tuple[str, ...]
    start_s: Distribution
    schemes: dict[str, CloudScheme]
    kv_blocks: KvBlocks | None = None


class CloudDocument(DocumentPart):
    """A comparison of engines.

    Attributes:
        trace: name of the trace's file; "generated" for rows made up here.
        fidelity: always "real": server processes, forward passes, gRPC; and no device.
        arrivals: always "closed loop": `slots` requests in flight.
        throughput_ratio: torch's requests per second over vLLM's, the median over passes, by
            scheme; empty unless both ran.
        kv_blocks_ratio: SkipV1Former's blocks over MHA's, by engine.
        equal_rows: rows whose answers all engines gave alike in all passes, by scheme.
        labels: what a reader must know to judge the figures.
        cores: CPU cores that servers and client were pinned to; empty when not pinned.
    """

    schema_version: int = 1
    trace: str
    trace_sha256: str | None
    fidelity: str = "real"
    arrivals: str = "closed loop"
    valid: bool
    invalid_because: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    percentile_method: str = PERCENTILE_METHOD
    cut_rows: CutRows
    prompt_tokens: Distribution
    output_tokens: Distribution
    settings: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    cores: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    versions: dict[str, str]
    hardware: dict[str, str | int] = Field(default_factory=dict)
    seed: int
    engines: dict[str, EngineResult]
    throughput_ratio: dict[str, float | None] = Field(default_factory=dict)
    kv_blocks_ratio: dict[str, float] = Field(default_factory=dict)
    equal_rows: dict[str, EqualRows] = Field(default_factory=dict)


def throughput_ratio(torch: CloudScheme, vllm: CloudScheme) -> float | None:
    """Return the median over passes of torch's requests per second over vLLM's.

    The passes of one repeat ran one after the other, so other load on the machine slowed both. None
    if a pass of vLLM gave no whole answer.
    """
    pairs = list(zip(torch.passes, vllm.passes, strict=True))
    if any(theirs.requests_per_s == 0 for _, theirs in pairs):
        return None
    return median(ours.requests_per_s / theirs.requests_per_s for ours, theirs in pairs)


def equal_rows(passes: Sequence[Sequence[CloudAnswer]]) -> EqualRows:
    """Compare each row's answers over the passes of all engines; a failed one equals none."""
    answers: dict[int, list[str | None]] = {}
    for answer in (a for one in passes for a in one):
        digest = answer.output_sha256 if answer.error is None else None
        answers.setdefault(answer.id, []).append(digest)
    equal = sum(None not in found and len(set(found)) == 1 for found in answers.values())
    return EqualRows(equal=equal, rows=len(answers))
