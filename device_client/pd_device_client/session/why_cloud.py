"""Why the cloud had its part in an answer, or none, when the answer has ended."""

from pd_core.errors import CloudBudgetSpent
from pd_device_client.contract.cloud_reason import CloudReason
from pd_device_client.session.cloud_leg import CloudLeg, LegState

__all__ = ["reason_at_end"]


def reason_at_end(cloud: CloudLeg, planned: CloudReason) -> CloudReason:
    """Return it from why that was planned, and from what came of it."""
    if isinstance(cloud.error, CloudBudgetSpent):
        return CloudReason.CAP
    if cloud.state is LegState.FAILED:
        return CloudReason.FAILED
    return CloudReason.NEEDED if cloud.streams and planned is CloudReason.PLAN else planned
