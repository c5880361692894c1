"""One disturbed answer: asked, read, perhaps left, and judged."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from pd_bench.chaos.found import ChaosFound
from pd_bench.chaos.verdict import judge
from pd_core.errors import PdError
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask

__all__ = ["Disturbed", "run_disturbed"]


@dataclass(frozen=True, slots=True)
class Disturbed:
    """One request of a campaign.

    Attributes:
        number: its number.
        ask: the request.
        expected: its answer without faults.
        faults: what is done to it, in words.
        well: one side is well all the time, and could make all of the answer.
        leaves_after: its reader goes away after so many tokens; None: it stays.
        most_s: an answer that takes longer counts as none.
    """

    number: int
    ask: Ask
    expected: Sequence[int]
    faults: tuple[str, ...]
    well: bool
    leaves_after: int | None
    most_s: float


async def run_disturbed(one: Disturbed, client: DeviceClient, found: ChaosFound) -> None:
    """Ask, read and judge; the client has started."""
    token_ids = list[int]()
    error, ended, left, handed_over, defect = None, True, False, False, ""
    try:
        async with asyncio.timeout(one.most_s):
            session = client.session(one.ask)
            async with aclosing(session.run()) as shown:
                async for _ in shown:
                    token_ids = session.outcome.token_ids
                    if one.leaves_after is not None and len(token_ids) >= one.leaves_after:
                        left = True
                        break
            token_ids = session.outcome.token_ids
            handed_over = session.outcome.handoff_position is not None
    except TimeoutError:
        ended = False
    except PdError as failure:
        error = failure
        found.errors[type(failure).__name__] += 1
    except Exception as failure:  # a defect, which the campaign is to find and to outlive
        ended, defect = False, f", {type(failure).__name__}: {failure}"
    verdict = judge(token_ids, one.expected, error, ended=ended, left=left, well=one.well)
    told = f"{len(token_ids)} of {len(one.expected)} tokens, {error or 'no error'}{defect}"
    found.add(one.number, verdict, f"{told}; {', '.join(one.faults) or 'no fault'}")
    found.handoffs += handed_over
    found.faults.update(name.split(" ")[0] for name in one.faults)
