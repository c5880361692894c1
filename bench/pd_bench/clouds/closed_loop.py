"""A closed loop: N requests in flight at all times, straight to a server, without devices."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from pd_bench.harness.cloud_tokens import cloud_tokens
from pd_bench.replay.workload import Work
from pd_bench.results.result import output_sha256
from pd_core.errors import PdError
from pd_core.generation import Start
from pd_device_client.contract.ports import CloudLink

__all__ = ["CloudAnswer", "run_closed_loop"]


@dataclass(frozen=True, slots=True)
class CloudAnswer:
    """The result of a request, seen from the client.

    Attributes:
        id: the work's id.
        ended_at_s: seconds from the loop's start to the last token, or to the failure.
        num_tokens: tokens received.
        output_sha256: digest of the token ids as little-endian int32.
        ttft_s: seconds from the request's start to its first token; None: no token came.
        error: why it failed, or None.
    """

    id: int
    ended_at_s: float
    num_tokens: int
    output_sha256: str
    ttft_s: float | None
    error: str | None


async def run_closed_loop(
    link: CloudLink,
    requests: Iterable[tuple[Work, Start]],
    *,
    in_flight: int,
    timeout_s: float,
    on_answer: Callable[[CloudAnswer], None] = lambda _: None,
) -> list[CloudAnswer]:
    """Send requests in order, the next one as soon as one of those in flight has ended.

    Args:
        link: to the server.
        requests: each with the work it stands for; its token limit says how many tokens count
            as a whole answer, or the work's length where that is shorter.
        in_flight: how many at once.
        timeout_s: a request that takes longer has failed.
        on_answer: told of every end.

    Returns:
        One answer a request, in order of their ends; failures are answers too.
    """
    loop = asyncio.get_running_loop()
    began_at_s = loop.time()
    answers: list[CloudAnswer] = []
    queue = iter(requests)

    async def client() -> None:
        for work, start in queue:
            answer = await _ask(link, work, start, timeout_s, began_at_s)
            answers.append(answer)
            on_answer(answer)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(client())
    return answers


async def _ask(
    link: CloudLink, work: Work, start: Start, timeout_s: float, began_at_s: float
) -> CloudAnswer:
    loop = asyncio.get_running_loop()
    sent_at_s = loop.time()
    first_at_s: float | None = None
    token_ids: list[int] = []
    error: str | None = None
    try:
        async with asyncio.timeout(timeout_s), aclosing(cloud_tokens(link, start)) as tokens:
            async for made in tokens:
                first_at_s = first_at_s or loop.time()
                token_ids.extend(made.token_ids)
    except TimeoutError:
        error = f"TimeoutError: no end within {timeout_s:g} s"
    except PdError as failure:
        error = f"{type(failure).__name__}: {failure}"
    wanted = min(start.token_limit, work.output_tokens)
    if error is None and len(token_ids) != wanted:
        error = f"the answer has {len(token_ids)} tokens instead of {wanted}"
    return CloudAnswer(
        id=work.id,
        ended_at_s=loop.time() - began_at_s,
        num_tokens=len(token_ids),
        output_sha256=output_sha256(token_ids),
        ttft_s=None if first_at_s is None else first_at_s - sent_at_s,
        error=error,
    )
