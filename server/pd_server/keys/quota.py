"""What one key may use, and what it has used: a policy without clock or network of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from pd_core.errors import QuotaExceeded, TokenLimitTooHigh

__all__ = ["Account", "Charge", "Quota"]

_MINUTE_S = 60.0
_DAY_S = 86_400.0
_STREAM_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of one key; None: no bound.

    Attributes:
        requests_per_minute: requests, those that are refused for lack of room included.
        tokens_per_day: prompt tokens and tokens made.
        streams: requests at once.
    """

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    streams: int | None = None


class Charge:
    """One request's share of its key's quota; give it back with `Account.settle`."""

    __slots__ = ("num_tokens", "settled")

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self.settled = False


class _Bucket:
    """Holds so much at most and refills evenly, so there is no hour at which all is fresh."""

    def __init__(self, size: int, period_s: float, now_s: float) -> None:
        self.size = size
        self._per_s = size / period_s
        self._level = float(size)
        self._at_s = now_s

    def level(self, now_s: float) -> float:
        self._level = min(float(self.size), self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._level

    def wait_s(self, amount: int, now_s: float) -> float:
        """Seconds until there is so much; 0 when there is."""
        return max(0.0, amount - self.level(now_s)) / self._per_s

    def take(self, amount: int, now_s: float) -> None:
        """Take so much; less than nothing gives back."""
        self._level = min(float(self.size), self.level(now_s) - amount)


class Account:
    """What one key has used. It lives as long as the process: a restart begins anew.

    Tokens are reserved when a request is admitted, for all that it may come to, and what it did
    not use is given back at its end. So a quota is never overshot.

    Args:
        name: the key's, for messages and metrics.
        quota: its bounds.
        clock: seconds, monotonic.
    """

    def __init__(self, name: str, quota: Quota, clock: Callable[[], float]) -> None:
        self.name = name
        self._clock = clock
        self._num_open = 0
        self._use(quota)

    @property
    def num_open(self) -> int:
        """Requests admitted and not settled yet."""
        return self._num_open

    def change(self, quota: Quota) -> None:
        """Hold to another quota from now on; an unchanged one keeps what was used of it."""
        if quota != self._quota:
            self._use(quota)

    def admit(self, num_tokens: int) -> Charge:
        """Admit a request that may come to num_tokens tokens.

        Raises:
            QuotaExceeded: over a bound now; carries the delay after which it is not.
            TokenLimitTooHigh: more than the key may use in a whole day.
        """
        now_s = self._clock()
        most = self._quota.streams
        if most is not None and self._num_open >= most:
            raise QuotaExceeded(
                f"the key {self.name!r} may have {most} requests at once; let one end first",
                _STREAM_RETRY_S,
            )
        if self._requests is not None:
            self._check(self._requests, 1, now_s, "requests a minute")
        if self._tokens is not None:
            if num_tokens > self._tokens.size:
                raise TokenLimitTooHigh(
                    f"prompt and token_limit come to {num_tokens} tokens; the key {self.name!r} "
                    f"may use {self._tokens.size} a day: ask for less"
                )
            self._check(self._tokens, num_tokens, now_s, "tokens a day")
            self._tokens.take(num_tokens, now_s)
        if self._requests is not None:
            self._requests.take(1, now_s)
        self._num_open += 1
        return Charge(num_tokens)

    def extend(self, charge: Charge, num_tokens: int) -> int:
        """Reserve more tokens for an admitted request; return how many of them there are."""
        if charge.settled or num_tokens <= 0:
            return 0
        if self._tokens is not None:
            now_s = self._clock()
            num_tokens = max(0, min(num_tokens, int(self._tokens.level(now_s))))
            self._tokens.take(num_tokens, now_s)
        charge.num_tokens += num_tokens
        return num_tokens

    def give_back(self, charge: Charge, num_tokens: int) -> None:
        """Give back reserved tokens that a request that goes on may not use after all."""
        if not charge.settled and self._tokens is not None:
            self._tokens.take(-num_tokens, self._clock())
            charge.num_tokens -= num_tokens

    def settle(self, charge: Charge, num_used: int) -> None:
        """Give back what a request did not use; a second settlement changes nothing."""
        if charge.settled:
            return
        charge.settled = True
        self._num_open -= 1
        if self._tokens is not None:
            self._tokens.take(num_used - charge.num_tokens, self._clock())

    def _use(self, quota: Quota) -> None:
        now_s = self._clock()
        self._quota = quota
        self._requests = _bucket(quota.requests_per_minute, _MINUTE_S, now_s)
        self._tokens = _bucket(quota.tokens_per_day, _DAY_S, now_s)

    def _check(self, bucket: _Bucket, amount: int, now_s: float, what: str) -> None:
        wait_s = bucket.wait_s(amount, now_s)
        if wait_s > 0.0:
            raise QuotaExceeded(
                f"the key {self.name!r} may use {bucket.size} {what}, and this request needs "
                f"{amount}; try again in {wait_s:.2f} s",
                wait_s,
            )


def _bucket(size: int | None, period_s: float, now_s: float) -> _Bucket | None:
    return None if size is None else _Bucket(size, period_s, now_s)
