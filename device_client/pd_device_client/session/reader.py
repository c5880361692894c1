"""The reader's side of one answer: releases text, keeps the pace, shows tokens."""

import asyncio
from collections.abc import Callable

from pd_core.generation import FinishReason
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Shown
from pd_device_client.contract.text_source import TextSource
from pd_device_client.session.clock import loop_time
from pd_device_client.session.outlook import ReaderOutlook
from pd_device_client.session.reading_pace import ReadingPace
from pd_device_client.session.seen import Seen
from pd_device_client.session.speed_controller import SpeedController
from pd_device_client.session.token_log import TokenLog
from pd_device_client.session.wakeup import Signal

__all__ = ["Reader"]


class Reader:
    """Shows what is committed, each token at its time.

    Args:
        ask: the request.
        log: the committed tokens.
        seen: filled as tokens are shown; has the pace, of which 0 shows each token as soon as it
            exists.
        outlook: forecasts the next arrivals.
        changed: notified when something was shown or committed.
        text: detokeniser with stop strings; without one no text is made.
        reading: the reader's own speed, which changes the pace with the text; None: it stays.

    Attributes:
        controller: chooses the gaps.
        held: show nothing while tokens may still come; for a simulation that shows them itself.
        over: nothing more is committed; set by the session.
        next_show_s: the instant at which the next token is shown; None while unknown.
    """

    def __init__(
        self,
        ask: Ask,
        log: TokenLog,
        seen: Seen,
        outlook: ReaderOutlook,
        changed: Signal,
        text: TextSource | None,
        reading: ReadingPace | None = None,
    ) -> None:
        self.controller = SpeedController(seen.pace_s)
        self._reading = reading
        self._read_along = ask.read_along
        self._log = log
        self._seen = seen
        self._outlook = outlook
        self._changed = changed
        self._text = text
        self._texts: list[str] = []  # of the released positions
        self._time: Callable[[], float] = loop_time
        self._due_s: float | None = None
        self.held = False
        self.over = False
        self.next_show_s: float | None = None
        self._stopped = False

    @property
    def makes_text(self) -> bool:
        """Whether text is made, so that a stop string may end the answer at any token."""
        return self._text is not None

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer, or None."""
        return None if self._text is None else self._text.stop_string

    def begin(self, asked_s: float | None) -> None:
        """Begin the answer; its times count from `asked_s`, or from now."""
        self._time = asyncio.get_running_loop().time
        self._seen.submitted_s = self._time() if asked_s is None else asked_s

    def since_submit_s(self) -> float:
        """Seconds from submit until now."""
        return self._time() - self._seen.submitted_s

    # What is committed

    def release(self, token_id: int) -> None:
        """Add the next committed token and release the text that it completes."""
        self._seen.arrived_at_s.append(self._time() - self._seen.submitted_s)
        if self._text is None:
            self._texts.append("")
        elif token_id not in self._log.end_token_ids:
            self._texts.extend(text for _, text in self._text.push(token_id))
            if self._text.stopped:
                self._log.close(FinishReason.STOP)
        self._changed.notify()

    def release_rest(self) -> None:
        """Release everything, after the log was closed."""
        if self._text is not None:
            self._texts.extend(text for _, text in self._text.flush())
        self._texts.extend([""] * (self._log.length - len(self._texts)))

    # What is shown

    @property
    def shows_next(self) -> bool:
        """Whether a released token has not been shown, and will be."""
        return len(self._texts) > len(self._seen.shown) and not self._stopped

    def stop(self) -> None:
        """Show nothing more."""
        self._stopped = self.over = True
        self._changed.notify()

    async def next_is_due(self) -> bool:
        """Wait until the next token is due and return True; False when there is none."""
        while True:
            while (self.held or not self.shows_next) and not self.over:
                await self._changed.wait()
            if not self.shows_next:
                return False
            position = len(self._seen.shown)
            await self._pace()
            # A simulation may have shown it already, or the answer was cancelled meanwhile.
            if len(self._seen.shown) == position and not self._stopped:
                return True

    async def _pace(self) -> None:
        """Wait until the next token may be shown; without a pace, return at once."""
        at_once = not self._seen.pace_s or (self.over and not self._read_along)
        if not self._seen.shown or at_once:
            return
        wait_s = self.next_wait_s()
        self.next_show_s = self._time() + wait_s
        await asyncio.sleep(wait_s)
        self._due_s, self.next_show_s = self.next_show_s, None

    def next_wait_s(self) -> float:
        """Seconds from now until the next token, already released, is due."""
        last = len(self._seen.shown) - 1
        if last < 0:
            return 0.0
        shown_s = self._seen.last_s
        arrivals, helped = self._outlook.arrivals(), self._outlook.helped
        gap_s = self.controller.next_gap_s(last, shown_s, arrivals, helped=helped)
        return max(shown_s + gap_s - self._time(), 0.0)

    def show(self) -> Shown:
        """Show the next token now."""
        log, seen = self._log, self._seen
        position = len(seen.shown)
        now_s = self._time()
        seen.last_s = self.controller.counted_s(self._due_s, now_s)
        self._due_s = None
        shown = Shown(
            position,
            log.token_ids[position],
            self._texts[position],
            log.origins[position],
            now_s - seen.submitted_s,
            log.logprobs.get(position),
        )
        seen.shown.append(shown)
        if self._reading is not None:
            self._reading.add(shown.text)
            seen.pace_s = self.controller.pace_s = self._reading.gap_s
        self._changed.notify()
        return shown
