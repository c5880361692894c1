"""Spans of one answer on the device; see `pd_core.process.tracing`.

answer                       from the plan to the last token shown
  plan
  cloud.stream               from asking the cloud to its last token; the cloud's own spans belong
                             to the answer too
  device.prefill             from the device's turn to the pass that reads the end of the prompt
  device.decode              its passes after that
  (events)                   handoff, claim returned, replanned, a side failed
"""

from contextvars import Context, copy_context

from pd_core.process.tracing import TRACEPARENT, Tracing, now_ns
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.happenings import (
    Claimed,
    ClaimReturned,
    CloudArrived,
    CloudAsked,
    CloudFailed,
    DeviceBegan,
    DeviceFailed,
    DevicePassed,
    Happening,
    Replanned,
)
from pd_device_client.contract.outcome import Outcome
from pd_device_client.planning.plan import Plan

__all__ = ["AnswerTrace"]


class AnswerTrace:
    """Follows one answer.

    Args:
        tracing: makes the spans. The answer's belongs to the one that is current, if any.
        ask: what is answered.
    """

    def __init__(self, tracing: Tracing, ask: Ask) -> None:
        self._span = tracing.begin("answer", TRACEPARENT.get())
        self._span.set(
            {
                "pd.request_id": ask.request_id,
                "gen_ai.usage.input_tokens": len(ask.prompt_token_ids),
            }
        )
        self._num_prompt = len(ask.prompt_token_ids)
        self._began_ns = now_ns()
        self._cloud_ns: tuple[int, int] | None = None
        self._num_arrived = 0
        self._device_ns: int | None = None
        self._prefilled_ns: int | None = None
        self._passed_ns = 0
        self._context = copy_context()
        self._context.run(TRACEPARENT.set, self._span.header)

    @property
    def context(self) -> Context:
        """What the answer's tasks run in."""
        return self._context

    def planned(self, plan: Plan) -> None:
        """The plan is made."""
        self._span.add(
            "plan",
            self._began_ns,
            now_ns(),
            {"pd.mode": plan.mode.value, "pd.cloud_tokens": plan.cloud_tokens},
        )

    def happened(self, what: Happening) -> None:
        """Take an event, now."""
        at_ns = now_ns()
        match what:
            case CloudAsked():
                self._cloud_ns = self._cloud_ns or (at_ns, at_ns)
            case CloudArrived(_, num_tokens):
                self._num_arrived += num_tokens
                self._cloud_ns = ((self._cloud_ns or (at_ns, at_ns))[0], at_ns)
            case CloudFailed(error, final):
                self._span.event(
                    "cloud failed", {"error.type": type(error).__name__, "pd.final": int(final)}
                )
                self._end_cloud(at_ns)
            case DeviceBegan():
                self._device_ns, self._prefilled_ns = at_ns, None
            case DevicePassed(num_fed):
                self._passed_ns = at_ns
                if self._prefilled_ns is None and num_fed >= self._num_prompt:
                    self._prefilled_ns = at_ns
            case DeviceFailed(error):
                self._span.event("device failed", {"error.type": type(error).__name__})
                self._end_device()
            case Claimed(position):
                self._span.event("handoff", {"pd.position": position})
            case ClaimReturned():
                self._span.event("claim returned", {})
            case Replanned(mode, position):
                self._span.event("replanned", {"pd.mode": mode.value, "pd.position": position})

    def ended(self, outcome: Outcome) -> None:
        """The answer is over."""
        self._end_cloud(now_ns())
        self._end_device()
        values: dict[str, str | int | float] = {
            "pd.finish_reason": str(outcome.finish_reason),
            "pd.tokens_of_cloud": outcome.cloud_tokens,
            "pd.tokens_of_device": outcome.device_tokens,
            "pd.exactness": outcome.exactness,
            "gen_ai.usage.output_tokens": len(outcome.shown),
        }
        if outcome.ttft_s is not None:
            values["pd.ttft_s"] = outcome.ttft_s
        if outcome.handoff_position is not None:
            values["pd.handoff_position"] = outcome.handoff_position
        self._span.set(values)
        self._span.end(outcome.error)

    def _end_cloud(self, at_ns: int) -> None:
        if self._cloud_ns is not None:
            asked_ns, last_ns = self._cloud_ns
            end_ns = last_ns if self._num_arrived else at_ns
            self._span.add("cloud.stream", asked_ns, end_ns, {"pd.tokens": self._num_arrived})
        self._cloud_ns, self._num_arrived = None, 0

    def _end_device(self) -> None:
        if self._device_ns is not None and self._passed_ns:
            prefilled_ns = self._prefilled_ns or self._passed_ns
            self._span.add("device.prefill", self._device_ns, prefilled_ns)
            if self._prefilled_ns is not None and self._passed_ns > prefilled_ns:
                self._span.add("device.decode", prefilled_ns, self._passed_ns)
        self._device_ns = None
