"""The report under the key `pd`: the plan, its outcome, and each token's origin."""

from typing import Any

from pd_device_client.api.completions.logprobs import finite
from pd_device_client.contract.outcome import Shown
from pd_device_client.session.session import Session

__all__ = ["final_report", "token_report"]


def token_report(shown: Shown) -> dict[str, Any]:
    """Return the report on one token, for requests that ask for it."""
    report = {
        "position": shown.position,
        "token_id": shown.token_id,
        "origin": shown.origin.value,
        "at_s": shown.at_s,
    }
    if shown.logprobs is not None:
        report["logprob"] = finite(shown.logprobs.logprob)
    return report


def final_report(session: Session) -> dict[str, Any]:
    """Return the report on a finished answer, sent in its last chunk or its choice."""
    plan, outcome = session.plan, session.outcome
    return {
        "mode": outcome.mode,
        "plan": {
            "mode": plan.mode.value,
            "cloud_tokens": outcome.planned_tokens,
            "pace_s": plan.pace_s,
            "keep_ratio": plan.keep_ratio,
            "ttft_s": plan.first_token_s,
            "broken": list(plan.broken),
        },
        "privacy": outcome.privacy.report(),
        "made_by": [
            {"side": run.origin.value, "from": run.first, "until": run.until}
            for run in outcome.made_by
        ],
        "cloud": {
            "sent": outcome.sent_to_cloud,
            "reason": outcome.cloud_reason.value,
            "words": outcome.cloud_reason.words,
            "cost": outcome.cloud_cost,
        },
        "handoff_position": outcome.handoff_position,
        "ttft_s": outcome.ttft_s,
        "tpot_s": outcome.tpot_s,
        "largest_gap_s": outcome.largest_gap_s,
        "handoff_gap_s": outcome.handoff_gap_s,
        "cloud_tokens": outcome.cloud_tokens,
        "cloud_tokens_generated": outcome.cloud_tokens_generated,
        "device_tokens": outcome.device_tokens,
        "device_tokens_generated": outcome.device_tokens_generated,
        "device_cached_tokens": outcome.device_cached_tokens,
        "cloud_cached_tokens": outcome.cloud_cached_tokens,
        "left_out_tokens": outcome.left_out_tokens,
        "disagreed": outcome.disagreed,
        "exactness": outcome.exactness,
        "seed": session.ask.sampling.seed,
        "notes": list(outcome.notes),
    }
