"""`pd-device chat` on a terminal: a conversation turn by turn, with commands."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console

from pd_core.errors import PdError
from pd_core.host.signals import begin_obeying, stop_obeying
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.privacy import FREE, KeptBy, Privacy
from pd_device_client.device.conversation import Conversation, Prompt
from pd_device_client.device.device import Device
from pd_device_client.device.prompt import knows_roles, text_token_ids
from pd_device_client.device.totals import Totals
from pd_device_client.session.session import Session
from pd_device_client.terminal.chat import asked, noted, show, summary, words_of
from pd_device_client.terminal.line_input import LineDropped
from pd_device_client.terminal.settings import ChatSettings

__all__ = ["COMMANDS", "Repl"]

COMMANDS = {
    "/mode": "/mode [MODE]  which sides answer: pd-device, device-only or cloud-only",
    "/stats": "/stats        figures of the last answer, and sums over this chat",
    "/local": "/local        keep this conversation on this device from now on",
    "/new": "/new          begin a new conversation",
    "/help": "/help         these lines",
    "/quit": "/quit         end; so does Ctrl-D",
}
_KEYS = (
    "Enter sends, Alt-Enter (or Esc, Enter) begins a line, Ctrl-C stops an answer. A prompt that "
    "begins with a slash is written with two."
)


class Repl:
    """A conversation with the reader at the keyboard.

    Args:
        settings: as for a single answer; its prompt is ignored.
        device: makes the answers.
        console: where to print.
        read: reads one prompt; EOFError ends the chat, LineDropped discards the typed text.
        has_cloud: whether there is a cloud link.

    Attributes:
        mode: which sides make the next answer.
        totals: sums over the answers.
    """

    def __init__(
        self,
        settings: ChatSettings,
        device: Device,
        console: Console,
        read: Callable[[], Awaitable[str]],
        *,
        has_cloud: bool,
    ) -> None:
        self.mode = settings.mode
        self.totals = Totals()
        self._settings = settings
        self._device = device
        self._console = console
        self._read = read
        self._has_cloud = has_cloud
        self._conversation = Conversation(device.loaded)
        self._last: Outcome | None = None
        self._privacy = FREE  # of this conversation

    async def run(self) -> None:
        """Read and answer until the reader ends it."""
        self._greet()
        while True:
            try:
                text = await self._read()
            except EOFError:
                return
            except LineDropped:
                continue
            if not text.strip():
                continue
            if text.startswith("/") and not text.startswith("//"):
                if text.split()[0] == "/quit":
                    return
                self._command(*text.split())
            else:
                await self._turn(text[1:] if text.startswith("//") else text)

    def _greet(self) -> None:
        loaded = self._device.loaded
        self._say(f"{loaded.name}; /help for help, Ctrl-D to end")
        if not self._settings.raw and not knows_roles(loaded):
            self._say("It is a base model: it continues a text instead of answering it.")
        if self._device.client.cloud.error is not None:
            self._say(f"note: the device goes on alone: {self._device.client.cloud.error}")

    # A turn

    async def _turn(self, said: str) -> None:
        loaded = self._device.loaded
        try:
            if self._settings.raw:
                turn = Prompt(said, said, text_token_ids(loaded, said))
            else:
                turn = self._conversation.turn(said)
            outcome = await self._answer(turn, await self._judged(turn))
        except PdError as error:
            self._say(f"{error}; the conversation is as before (/new begins another)", "red")
            return
        if outcome is None:
            return
        if self._settings.show_origin:
            self._console.print(summary(outcome), soft_wrap=True)
        self._last = outcome
        self.totals.add(outcome)
        self._conversation.answered(turn, outcome)

    async def _judged(self, turn: Prompt) -> Privacy:
        """Judge a turn; what was kept on this device stays here, with all that follows."""
        if not self._privacy.local_only:
            words = words_of(self._device.loaded, turn.text, turn.token_ids)
            judged = await self._device.judge.judge(words)
            if self._settings.raw:
                return judged  # each prompt stands alone
            self._privacy = replace(judged, by=judged.by and KeptBy.CONVERSATION, problem="")
            return judged
        return self._privacy

    async def _answer(self, turn: Prompt, privacy: Privacy) -> Outcome | None:
        """Show an answer and return its outcome, even if stopped; None if nothing was shown."""
        device, prompt = self._device, turn.token_ids
        room = device.client.room_tokens(len(prompt), self.mode)
        limit = max(min(self._settings.max_tokens, room), 1)
        ask = asked(self._settings, device.loaded, prompt, self.mode, limit, turn.messages, privacy)
        session = device.client.session(ask)
        with noted(session, self._console):
            await self._shown(session)
        return session.outcome if session.outcome.shown else None

    async def _shown(self, session: Session) -> None:
        """Show an answer to its end, or until Ctrl-C stops it."""
        task = asyncio.ensure_future(show(session, self._console, tint=self._settings.show_origin))
        with _on_ctrl_c(task.cancel):
            try:
                await task
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise  # the whole chat was cancelled
                self._say("\n(stopped)")

    # Commands

    def _command(self, name: str, *words: str) -> None:
        if name == "/mode":
            self._change_mode(*words)
        elif name == "/stats":
            self._show_figures()
        elif name == "/local":
            self._privacy = Privacy(KeptBy.REQUEST)
            self._say("from now on nothing of this conversation leaves this device; /new ends that")
        elif name == "/new":
            self._conversation = Conversation(self._device.loaded)
            self._privacy = FREE
            self._say("a new conversation")
        elif name == "/help":
            for line in (*COMMANDS.values(), _KEYS):
                self._say(line)
        else:
            self._say(f"there is no command {name}; /help names them", "red")

    def _change_mode(self, wanted: str = "", *_: str) -> None:
        modes = [mode.value for mode in Mode]
        if wanted and wanted not in modes:
            self._say(f"there is no mode {wanted}; there are {', '.join(modes)}", "red")
        elif wanted and wanted != self.mode.value and not self._has_cloud:
            self._say(
                "this chat has no cloud, so all answers are this device's; start it with --cloud "
                "HOST:PORT, or a URL, and without --mode device-only",
                "red",
            )
        else:
            self.mode = Mode(wanted or self.mode)
            self._say(f"mode {self.mode.value}")

    def _show_figures(self) -> None:
        if self._last is None:
            self._say("no answer yet")
            return
        last, sums = self._last, self.totals
        self._console.print("last: ", summary(last), sep="", soft_wrap=True)
        self._say(f"      {last.device_cached_tokens} tokens of its prompt were kept from before")
        self._say(
            f"chat: answers {sums.answers}, handed over {sums.handed_over}, tokens shown "
            f"{sums.shown_tokens}, made by the cloud {sums.cloud_tokens}, without it "
            f"{sums.cloud_tokens_saved}"
        )

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, soft_wrap=True, markup=False)


@contextmanager
def _on_ctrl_c(act: Callable[[], object]) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    begin_obeying(signal.SIGINT, act)
    try:
        yield
    finally:
        stop_obeying(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
