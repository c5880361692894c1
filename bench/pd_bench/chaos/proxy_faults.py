"""What the proxy between a real client and a real server does to one request, drawn by a seed."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from pd_bench.chaos.fault_proxy import FaultProxy

__all__ = ["ProxyFault", "draw_proxy_faults"]

_LOOK_S = 0.002


@dataclass(frozen=True, slots=True)
class ProxyFault:
    """One fault.

    Attributes:
        words: what it is, the kind first.
        at_bytes: it begins when so many more bytes have come down.
        strike: does it.
    """

    words: str
    at_bytes: int
    strike: Callable[[FaultProxy], None]

    async def run(self, proxy: FaultProxy) -> None:
        """Wait for its place, and strike."""
        until = proxy.bytes_down + self.at_bytes
        while proxy.bytes_down < until:  # noqa: ASYNC110 - bytes just pass, and nobody tells
            await asyncio.sleep(_LOOK_S)
        self.strike(proxy)


def draw_proxy_faults(rng: random.Random) -> list[ProxyFault]:
    """Draw up to three faults of a request."""
    return [_drawn(rng) for _ in range(rng.choice([0, 1, 1, 2, 3]))]


def _drawn(rng: random.Random) -> ProxyFault:
    at = int(rng.expovariate(1 / 400))
    kind = rng.choice(["late", "sliced", "slow", "cut", "half-cut", "flipped", "stalled", "paused"])
    after = f"{kind} after {at} bytes"
    match kind:
        case "late":
            seconds = rng.uniform(0.0, 0.1)
            return ProxyFault(f"late by {seconds:.3f} s", 0, lambda p: _late(p, seconds))
        case "sliced":
            size = rng.randrange(1, 20)
            return ProxyFault(f"sliced in {size} bytes", 0, lambda p: _sliced(p, size))
        case "slow":
            rate = rng.uniform(2_000, 50_000)
            return ProxyFault(f"slow at {rate:.0f} bytes/s", 0, lambda p: _slow(p, rate))
        case "cut":
            return ProxyFault(after, at, FaultProxy.cut)
        case "half-cut":
            return ProxyFault(after, 0, lambda p: _cut_up(p, at))
        case "flipped":
            bit, up = at * 8 + rng.randrange(8), rng.random() < 0.3
            return ProxyFault(f"flipped bit {bit}", 0, lambda p: _flip(p, bit, up=up))
        case "stalled":
            return ProxyFault(after, at, FaultProxy.stall)
    seconds = rng.uniform(0.05, 1.0)
    return ProxyFault(f"{after} for {seconds:.2f} s", at, lambda p: _paused(p, seconds))


def _late(proxy: FaultProxy, seconds: float) -> None:
    proxy.faults.up.delay_s = proxy.faults.down.delay_s = seconds


def _sliced(proxy: FaultProxy, size: int) -> None:
    proxy.faults.up.slice_bytes = proxy.faults.down.slice_bytes = size


def _slow(proxy: FaultProxy, bytes_per_s: float) -> None:
    proxy.faults.down.bytes_per_s = bytes_per_s


def _cut_up(proxy: FaultProxy, after_bytes: int) -> None:
    proxy.faults.up.cut_after_bytes = proxy.bytes_up + after_bytes


def _flip(proxy: FaultProxy, bit: int, *, up: bool) -> None:
    fault, passed = (
        (proxy.faults.up, proxy.bytes_up) if up else (proxy.faults.down, proxy.bytes_down)
    )
    fault.flip_bit = passed * 8 + bit


def _paused(proxy: FaultProxy, seconds: float) -> None:
    proxy.stall()
    asyncio.get_running_loop().call_later(seconds, proxy.resume)
