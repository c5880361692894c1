"""What the cloud may make for a request, from the user's caps and the request's own."""

from dataclasses import replace
from weakref import WeakValueDictionary

from pd_core.errors import CloudBudgetSpent, ConfigError, ContradictoryPromises
from pd_device_client.contract.ask import Ask, Promise
from pd_device_client.planning.cloud_allowance import CloudAllowance, CloudCaps, DayAccount, Spent
from pd_device_client.session.sides import Sides

__all__ = ["SPENT_NOTE", "Spending", "capped"]

SPENT_NOTE = (
    "the caps on the cloud's tokens and cost are spent, so this device answers; raise them, or ask "
    "again tomorrow if the day's are spent"
)
"""For an answer that the cloud alone was to make."""


class Spending:
    """Gives each answer its share of the caps.

    Args:
        caps: the user's.
        account: what was spent today; None without a cap of a day.
    """

    def __init__(self, caps: CloudCaps, account: DayAccount | None) -> None:
        self._caps = caps
        self._account = account
        self._spent = WeakValueDictionary[str, Spent]()  # by the asks' groups, while one runs

    def allowance(self, promise: Promise, group: str) -> CloudAllowance | None:
        """Return what the cloud may make for an answer; None: there are no caps and no prices.

        Args:
            promise: with the request's own caps.
            group: answers with the same share the request's caps; "": it is alone.

        Raises:
            ContradictoryPromises: a cap on its cost, and no price.
        """
        tokens, cost = promise.max_cloud_tokens, promise.max_cloud_cost
        try:
            caps = replace(self._caps, request_tokens=tokens, request_cost=cost)
        except ConfigError as error:
            raise ContradictoryPromises(str(error)) from error
        if caps == CloudCaps():
            return None
        spent = self._spent.setdefault(group, Spent()) if group else Spent()
        return CloudAllowance(caps, self._account, spent)


def capped(promise: Promise, ask: Ask, sides: Sides) -> Promise:
    """Return the promise with the cloud's tokens that the caps leave for this request.

    Raises:
        CloudBudgetSpent: they leave none, and there is no other side.
    """
    if sides.allowance is None or sides.link is None:
        return promise
    left = sides.allowance.tokens_left(len(ask.prompt_token_ids))
    if left == 0 and sides.engine is None:
        raise CloudBudgetSpent(
            "the caps on the cloud's tokens and cost are spent, and this device cannot answer "
            "alone; raise them, or ask again tomorrow"
        )
    return replace(promise, max_cloud_tokens=left)
