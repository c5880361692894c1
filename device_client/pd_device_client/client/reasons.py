"""Why a request is kept on this device, and why the cloud is given a part of it or none."""

from pd_device_client.client.side_choice import SideChoice
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.contract.cloud_reason import CloudReason
from pd_device_client.contract.privacy import FREE, KeptBy, Privacy
from pd_device_client.planning.plan import Plan

__all__ = ["privacy_notes", "privacy_of", "reason_at_start"]


def privacy_of(ask: Ask, promise: Promise, standing: Promise, *, judged_only: bool) -> Privacy:
    """Return the judgement that holds for a request.

    Args:
        ask: the request, with a judgement of its words or none.
        promise: to its reader.
        standing: the promise to all readers.
        judged_only: what nobody has judged is kept.
    """
    if standing.local_only:
        return Privacy(KeptBy.SETTINGS)
    if ask.privacy is None and judged_only:
        return Privacy(KeptBy.NOT_TESTED)
    if promise.local_only and (ask.privacy is None or not ask.privacy.local_only):
        return Privacy(KeptBy.REQUEST)
    return ask.privacy or FREE


def privacy_notes(privacy: Privacy) -> list[str]:
    """Return the note that a reader is owed who has not said it in this very request."""
    said = privacy.by in (None, KeptBy.SETTINGS, KeptBy.REQUEST)
    return [] if said else [privacy.words]


def reason_at_start(
    choice: SideChoice, privacy: Privacy, promise: Promise, plan: Plan
) -> CloudReason:
    """Return why the cloud is planned for a part of an answer, or for none.

    Args:
        choice: the sides that can take part.
        privacy: the judgement that holds.
        promise: with what the caps leave.
        plan: made with them.
    """
    if privacy.local_only:
        return CloudReason.PRIVACY
    if not choice.cloud:
        return choice.cloud_reason
    if promise.max_cloud_tokens == 0:
        return CloudReason.CAP
    return CloudReason.PLAN if plan.mode is Mode.DEVICE_ONLY else CloudReason.PLANNED
