"""The session's events under the key `pd`, for requests that ask for them."""

from typing import Any

from pd_core.errors import PdError
from pd_device_client.api.http.errors import error_body
from pd_device_client.contract.happenings import (
    Claimed,
    ClaimReturned,
    CloudArrived,
    CloudAsked,
    CloudFailed,
    DeviceBegan,
    DeviceFailed,
    DevicePassed,
    Happened,
    Happening,
    PromptRefined,
    Replanned,
)
from pd_device_client.planning.plan_notes import plan_words
from pd_device_client.session.session import Session

__all__ = ["event_report", "plan_report"]


def plan_report(session: Session) -> dict[str, Any]:
    """Return the first event: the plan."""
    plan, outcome = session.plan, session.outcome
    prompt_tokens = len(session.ask.prompt_token_ids)
    return {
        "event": "plan",
        "at_s": 0.0,
        "mode": plan.mode.value,
        "words": plan_words(plan, prompt_tokens),
        "prompt_tokens": prompt_tokens,
        "cloud_tokens": outcome.planned_tokens,
        "keep_ratio": plan.keep_ratio,
        "pace_s": plan.pace_s,
        "ttft_s": plan.first_token_s,
        "ready_s": plan.ready_s,
        "why": plan.why,
        "broken": list(plan.broken),
        "exactness": "refined" if plan.keep_ratio < 1.0 else outcome.exactness,
        "notes": list(outcome.notes),
        "privacy": outcome.privacy.report(),
        "cloud_reason": outcome.cloud_reason.value,
    }


def event_report(happened: Happened) -> dict[str, Any]:
    """Return the event of a happening."""
    name, facts = _told(happened.what)
    return {"event": name, "at_s": happened.at_s, **facts}


def _told(happening: Happening) -> tuple[str, dict[str, Any]]:
    facts: dict[str, Any]
    match happening:
        case CloudAsked(limit):
            return "cloud_asked", {"cloud_tokens": limit}
        case CloudArrived(position, num_tokens):
            return "cloud_tokens", {"position": position, "num_tokens": num_tokens}
        case CloudFailed(error, final):
            return "cloud_failed", {"final": final, **_error(error)}
        case DeviceBegan(num_cached):
            return "device_began", {"cached_tokens": num_cached}
        case DevicePassed(num_fed, num_tokens, seconds):
            facts = {"fed_tokens": num_fed, "num_tokens": num_tokens, "seconds": seconds}
            return "device_pass", facts
        case PromptRefined(num_left_out):
            return "prompt_refined", {"left_out_tokens": num_left_out}
        case DeviceFailed(error):
            return "device_failed", _error(error)
        case Claimed(position):
            return "handoff", {"position": position}
        case ClaimReturned():
            return "handoff_undone", {}
        case Replanned(mode, position, cloud_tokens, why):
            facts = {"mode": mode.value, "position": position, "cloud_tokens": cloud_tokens}
            return "replan", {**facts, "why": why}


def _error(error: PdError) -> dict[str, Any]:
    told = error_body(error)["error"]
    return {"message": told["message"], "code": told["code"]}
