"""A replay against any OpenAI-compatible server: open loop, streamed, measured from outside.

The rules are those of `pd_bench.replay.replay` as far as a foreign server allows: each row's length
is its token limit (its sampler cannot be forced to end there), the answers' cost is unknown, and
the server's state is not fresh. The document says all of this.
"""

import asyncio
import secrets
from collections.abc import Sequence

from pd_bench.endpoint.client import RESERVED_IDS, Endpoint, EndpointOutcome, endpoint_record
from pd_bench.endpoint.settings import EndpointSettings
from pd_bench.harness.bounds import warm_up_failure
from pd_bench.harness.cores import num_processors
from pd_bench.replay.dispatch import Dispatched, Dispatcher
from pd_bench.replay.progress import Progress
from pd_bench.replay.workload import Work, Workload
from pd_bench.results.result import (
    Distribution,
    EqualRows,
    RequestRecord,
    ResultDocument,
    SchemeResult,
)
from pd_bench.results.series import Timeline, sample_rows
from pd_bench.results.validity import early_end, lag_problems, sharing_problems
from pd_bench.traces.cells import MAX_TOKENS
from pd_bench.traces.reader import SkippedRows
from pd_core.errors import PdError
from pd_core.generation import Fingerprints, ModelCard
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Outcome

__all__ = ["EndpointReplay"]

_SCHEME = "endpoint"


class EndpointReplay:
    """One replay of a trace against an endpoint.

    Args:
        settings: the inputs.
        progress: notified of every token.

    Raises:
        TraceError: the trace cannot be read or a row is broken.
        ConfigError: a limit leaves no room.

    Attributes:
        failure: the error that ended the replay early, after something was measured, or None.
    """

    def __init__(self, settings: EndpointSettings, progress: Progress) -> None:
        self.failure: PdError | None = None
        self._settings = settings
        self._progress = progress
        self._skipped = SkippedRows()
        self._rows = list(settings.rows(self._skipped))
        self._workload = _workload(settings)
        self._records: list[RequestRecord] = []
        self._timelines: list[Timeline] = []
        self._model = ""
        self._partial = False
        self._words = self._counted = 0  # of prompts as sent, and as the server counted them

    async def run(self) -> ResultDocument:
        """Replay and return the result; a partial one when it ends early.

        Raises:
            PdError: the server cannot be reached, or its warm-up failed, before anything was
                measured; later it is the `failure`.
            asyncio.CancelledError: interrupted before the first pass began.
        """
        began = False
        try:
            for repeat in range(self._settings.repeat):
                endpoint = Endpoint(self._settings)
                try:
                    self._model = await endpoint.model()
                    await self._warm_up(endpoint)
                    began = True
                    await self._pass(endpoint, repeat)
                finally:
                    await endpoint.close_pool()
        except asyncio.CancelledError:
            if not began:
                raise
            self._partial = True
        except PdError as error:
            if not began:
                raise
            self._partial = True
            self.failure = error
        return self._document()

    async def _pass(self, endpoint: Endpoint, repeat: int) -> None:
        works = self._workload.works(self._rows)
        watched = sample_rows(range(len(works))) if repeat == 0 else ()
        dispatcher = self._dispatcher(repeat, self._progress, watched)
        self._progress.begin(_SCHEME, len(works))
        try:
            await dispatcher.run_open_loop(works, lambda _: endpoint)
        finally:
            self._records += dispatcher.records
            self._timelines += dispatcher.timelines

    async def _warm_up(self, endpoint: Endpoint) -> None:
        dispatcher = self._dispatcher(0, None, ())
        await dispatcher.run_open_loop([self._workload.warm_up()], lambda _: endpoint, 0.0)
        if error := dispatcher.records[0].error:
            raise warm_up_failure(error, self._settings.timeout_s)

    def _dispatcher(
        self, repeat: int, progress: Progress | None, watched: Sequence[int]
    ) -> Dispatcher:
        salt = secrets.token_hex(4)

        def request_of(work: Work) -> Ask:
            # A foreign server's sampler cannot force a length, so the row's length is the limit.
            return Ask(
                f"{salt}-{work.id}",
                work.prompt_token_ids,
                work.output_tokens,
                SamplingParams(seed=self._settings.seed),
            )

        return Dispatcher(
            _SCHEME,
            repeat,
            request_of,
            timeout_s=self._settings.timeout_s,
            progress=progress,
            watched=watched,
            make_record=self._record,
        )

    def _record(self, work: Work, outcome: Outcome, sent: Dispatched) -> RequestRecord:
        if isinstance(outcome, EndpointOutcome) and outcome.reported_prompt_tokens is not None:
            self._words += len(work.prompt_token_ids)
            self._counted += outcome.reported_prompt_tokens
        return endpoint_record(work, outcome, sent)

    def _document(self) -> ResultDocument:
        settings = self._settings
        records = sorted(self._records, key=lambda r: (r.repeat, r.id))
        problems = lag_problems(records, settings.pace_s)
        if settings.is_here:
            problems += sharing_problems(num_processors())
        if self._partial:
            problems.insert(0, early_end(self.failure))
        return settings.document(
            self._skipped,
            problems,
            fidelity="endpoint",
            arrivals="trace",
            exactness="consistent",
            partial=self._partial,
            labels=self._labels(),
            dispatch_lag_s=Distribution.of(r.dispatch_lag_s for r in records),
            cut_rows=self._workload.cut_rows(self._rows),
            equal_rows=EqualRows.of(records, settings.repeat),
            profiles={},
            settings={
                "limit": settings.limit,
                "temperature": settings.temperature,
                "repeat": settings.repeat,
                "model": self._model,
                "max_prompt_tokens": settings.max_prompt_tokens,
                "max_output_tokens": settings.max_output_tokens,
                "own_server": False,
                "prompts": settings.prompts,
                "plain": settings.plain,
                "timeout_s": settings.timeout_s,
            },
            schemes={_SCHEME: SchemeResult.of(records, settings.pace_s, None, 0)},
            requests=tuple(records),
            timelines=tuple(self._timelines),
        )

    def _labels(self) -> tuple[str, ...]:
        prompts = "token ids"
        if self._settings.prompts == "text":
            share = f"{self._counted / self._words:.2f}" if self._words else "an unknown number of"
            prompts = (
                f"words, {share} tokens each by the server's count (a row's length is in words)"
            )
        return (
            f"endpoint: an OpenAI-compatible server that is not ours, model {self._model}; its "
            "state is not fresh",
            "every request opens a connection of its own: that is part of TTFT",
            "not paced: what is shown is what came; stalls are gaps of more than twice the pace",
            "each row's length is its token limit, which the server may plan with",
            f"prompts: {prompts}, the same ones for the same row and seed",
            "the cloud's costs: not known; tokens by the server's count",
            *self._skipped.labels,
        )


def _workload(settings: EndpointSettings) -> Workload:
    """Return the workload; the server's limits are unknown, so only the settings cut rows."""
    longest = settings.max_prompt_tokens or MAX_TOKENS
    model = ModelCard(
        name="unknown",
        engine="unknown",
        fingerprints=Fingerprints(),
        vocab_size=settings.vocab_size,
        eos_token_ids=tuple(range(RESERVED_IDS)),
        max_context_tokens=longest + settings.max_output_tokens,
    )
    return Workload(
        model,
        settings.max_output_tokens,
        seed=settings.seed,
        temperature=settings.temperature,
        max_prompt_tokens=longest,
        max_output_tokens=settings.max_output_tokens,
    )
