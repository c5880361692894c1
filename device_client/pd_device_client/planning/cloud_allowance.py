"""What the cloud may still make for a request, by the user's caps.

Tokens are paid for before they are asked for, and what a stream has not made is given back when it
has ended in order. So no cap is passed by answers at the same time, by continuations, or by a
process that dies.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pd_core.errors import ConfigError

__all__ = ["CloudAllowance", "CloudCaps", "DayAccount", "Spent"]

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class CloudCaps:
    """The user's caps; None: there is none.

    Attributes:
        request_tokens: tokens that the cloud may make for one request.
        day_tokens: the same for all requests of a day.
        request_cost: money for one request.
        day_cost: money for a day.
        prompt_price: money for a million tokens of prompts.
        answer_price: money for a million tokens that the cloud makes.

    Raises:
        ConfigError: a cap on money, and no price.
    """

    request_tokens: int | None = None
    day_tokens: int | None = None
    request_cost: float | None = None
    day_cost: float | None = None
    prompt_price: float = 0.0
    answer_price: float = 0.0

    def __post_init__(self) -> None:
        costs = self.request_cost is not None or self.day_cost is not None
        if costs and self.prompt_price == 0 and self.answer_price == 0:
            raise ConfigError(
                "a cap on the cloud's cost is given, and no price; give --cloud-answer-price, "
                "--cloud-prompt-price, or both"
            )

    @property
    def of_a_day(self) -> bool:
        """Whether a cap counts over a day."""
        return self.day_tokens is not None or self.day_cost is not None

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Return what these tokens cost."""
        paid = prompt_tokens * self.prompt_price + answer_tokens * self.answer_price
        return paid / _MILLION

    def affordable(self, spent_tokens: int, spent_cost: float, prompt_tokens: int) -> int | None:
        """Return how many tokens one request may have, by its own caps; None: as many as it likes.

        Args:
            spent_tokens: what the cloud has made for it.
            spent_cost: what that has cost.
            prompt_tokens: to be sent once more for them; 0: a stream is open.
        """
        caps = (self.request_tokens, self.request_cost)
        return self._affordable(*caps, spent_tokens, spent_cost, prompt_tokens)

    def affordable_today(
        self, spent_tokens: int, spent_cost: float, prompt_tokens: int
    ) -> int | None:
        """Return the same by the day's caps."""
        caps = (self.day_tokens, self.day_cost)
        return self._affordable(*caps, spent_tokens, spent_cost, prompt_tokens)

    def _affordable(
        self,
        most_tokens: int | None,
        most_cost: float | None,
        spent_tokens: int,
        spent_cost: float,
        prompt_tokens: int,
    ) -> int | None:
        left = [] if most_tokens is None else [most_tokens - spent_tokens]
        if most_cost is not None:
            money = most_cost - spent_cost - self.cost(prompt_tokens, 0)
            if money < 0:
                left.append(0)
            elif self.answer_price > 0:
                left.append(math.floor(money * _MILLION / self.answer_price + 1e-6))
        return max(min(left), 0) if left else None


class DayAccount(Protocol):
    """What was spent today, by all processes of this user."""

    def spend(self, ask: Callable[[int, float], tuple[int, float]]) -> int:
        """Spend what `ask` returns for (tokens, money spent so far); return its tokens."""
        ...


@dataclass(slots=True, weakref_slot=True)
class Spent:
    """What the cloud was paid for one request, over all its answers.

    Attributes:
        tokens: made, or still to be made.
        cost: money.
    """

    tokens: int = 0
    cost: float = 0.0


class CloudAllowance:
    """One answer's share of the caps.

    Args:
        caps: the user's.
        account: the day's; None without a cap of a day.
        spent: for the request so far; its answers share it. None: it has one answer.

    Attributes:
        cost: money paid for this answer; what was not made is given back.
    """

    def __init__(
        self, caps: CloudCaps, account: DayAccount | None = None, spent: Spent | None = None
    ) -> None:
        self._caps = caps
        self._account = account
        self._request = spent or Spent()
        self.cost = 0.0

    @property
    def priced(self) -> bool:
        """Whether the cost is known."""
        return self._caps.prompt_price > 0 or self._caps.answer_price > 0

    def tokens_left(self, prompt_tokens: int) -> int | None:
        """Return how many tokens a first stream would be granted; None: any number."""
        spent = self._request
        own = self._caps.affordable(spent.tokens, spent.cost, prompt_tokens)
        today: int | None = None

        def look(tokens: int, cost: float) -> tuple[int, float]:
            nonlocal today
            today = self._caps.affordable_today(tokens, cost, prompt_tokens)
            return 0, 0.0

        if self._account is not None:
            self._account.spend(look)
        return min((left for left in (own, today) if left is not None), default=None)

    def take(self, tokens: int, prompt_tokens: int = 0) -> int:
        """Pay for up to `tokens` tokens, and for a prompt; return how many: 0 is paid for nothing.

        Args:
            tokens: how many are wanted, 1 or more.
            prompt_tokens: sent with them; 0 if a stream is open.
        """
        caps, spent = self._caps, self._request
        granted = _least(tokens, caps.affordable(spent.tokens, spent.cost, prompt_tokens))

        def ask(spent_tokens: int, spent_cost: float) -> tuple[int, float]:
            nonlocal granted
            left = caps.affordable_today(spent_tokens, spent_cost, prompt_tokens)
            granted = _least(granted, left)
            return granted, caps.cost(prompt_tokens, granted) if granted else 0.0

        if self._account is not None:
            self._account.spend(ask)
        if granted:
            self._pay(granted, caps.cost(prompt_tokens, granted))
        return granted

    def give_back(self, tokens: int) -> None:
        """Tokens that were paid for and that a stream, which has ended, did not make."""
        cost = self._caps.cost(0, tokens)
        self._pay(-tokens, -cost)
        if self._account is not None and tokens:
            self._account.spend(lambda _tokens, _cost: (-tokens, -cost))

    def _pay(self, tokens: int, cost: float) -> None:
        self._request.tokens += tokens
        self._request.cost += cost
        self.cost += cost


def _least(wanted: int, left: int | None) -> int:
    return wanted if left is None else min(wanted, left)
