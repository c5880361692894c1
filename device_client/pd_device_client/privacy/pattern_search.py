"""Searches texts for patterns within a bounded time, whatever the patterns are.

A pattern can take longer than the universe exists, and nothing in this process could stop it. So a
child process searches, which is killed when its time is over.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pd_core.errors import EngineError
from pd_core.process.walled_process import WalledProcess

__all__ = ["Found", "PatternSearch"]

logger = logging.getLogger(__name__)

_PROGRAM = "pd_device_client.privacy.pattern_program"
_MOST_REPLY_BYTES = 1 << 12
_WITHIN_S = 1.0
_TAKE_OVER_WITHIN_S = 10.0  # millions of characters, on a busy machine


@dataclass(frozen=True, slots=True)
class Found:
    """A pattern that a text has, or may have.

    Attributes:
        name: the pattern's.
        problem: why the search came to no end, in words; "": a text has it.
    """

    name: str
    problem: str = ""


class PatternSearch:
    """Searches for patterns in a child process, which starts when it is first needed.

    Args:
        patterns: Python's regular expressions, by name.
        within_s: most seconds for all patterns on one request.
    """

    def __init__(self, patterns: Mapping[str, str], *, within_s: float = _WITHIN_S) -> None:
        self._patterns = dict(patterns)
        self._within_s = within_s
        self._process: WalledProcess | None = None
        self._turn = asyncio.Lock()  # threads that wait would be missing for everything else

    def __bool__(self) -> bool:
        """Whether there are patterns."""
        return bool(self._patterns)

    async def first(self, texts: Sequence[str]) -> Found | None:
        """Return the first pattern that one of the texts has, or that could not be tested."""
        if not self._patterns:
            return None
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(None, partial(self._first, texts, loop.time))
        work.add_done_callback(self._done)
        # A cancelled caller does not stop the thread; the turn is over when the thread is done.
        return await asyncio.shield(work)

    def _done(self, work: "asyncio.Future[Found | None]") -> None:
        self._turn.release()
        if not work.cancelled():
            work.exception()  # mark it as retrieved: the caller may be gone

    def close(self) -> None:
        """End the child process; a search that runs comes to no end."""
        if self._process is not None:
            self._process.end()

    def _first(self, texts: Sequence[str], now_s: Callable[[], float]) -> Found | None:
        name = next(iter(self._patterns))
        try:
            process = self._begun()
            process.ask({"texts": list(texts)}, _TAKE_OVER_WITHIN_S)
            until_s = now_s() + self._within_s
            found = None
            for number, name in enumerate(self._patterns):
                left_s = max(until_s - now_s(), 0.001)
                if process.ask({"search": number}, left_s)["found"]:
                    found = Found(name)
                    break
            process.ask({"texts": []}, _TAKE_OVER_WITHIN_S)  # it is not to keep anyone's words
            return found
        except TimeoutError:
            problem = f"the search took more than {self._within_s:g} s"
        except (ConnectionError, EngineError) as error:
            problem = str(error)
        self._end()
        logger.warning('the rule "%s" could not be tested: %s', name, problem)
        return Found(name, problem)

    def _begun(self) -> WalledProcess:
        if self._process is not None and not self._process.alive:
            self._end()
        if self._process is None:
            self._process = WalledProcess(_PROGRAM, "main", _MOST_REPLY_BYTES)
            self._process.ask({"patterns": [*self._patterns.values()]}, _TAKE_OVER_WITHIN_S)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
        self._process = None
