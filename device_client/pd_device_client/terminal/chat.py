"""`pd-device chat` with one prompt: its answer streamed to the terminal, and a summary."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from pd_core.errors import ConfigError
from pd_device_client.contract.ask import Ask, Mode, draw_request_id
from pd_device_client.contract.cloud_reason import CloudReason
from pd_device_client.contract.outcome import Origin, Outcome, Shown
from pd_device_client.contract.ports import CloudLink
from pd_device_client.contract.privacy import Privacy
from pd_device_client.device.battery import read_battery
from pd_device_client.device.device import Device, draw_seed, open_device
from pd_device_client.device.prompt import knows_roles, prompt_token_ids
from pd_device_client.engine.served_model import ServedModel
from pd_device_client.privacy.judge import Words
from pd_device_client.session.session import Session
from pd_device_client.terminal.load_progress import LoadingLine
from pd_device_client.terminal.settings import ChatSettings

__all__ = ["asked", "chat", "load", "noted", "show", "summary", "words_of"]

# A model's text must not control the terminal; line breaks and tabs are allowed.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# Readable on dark and light terminals alike.
_STYLES = {Origin.CLOUD: "dodger_blue1", Origin.DEVICE: "green3"}


def asked(
    settings: ChatSettings,
    loaded: ServedModel,
    prompt_token_ids: tuple[int, ...],
    mode: Mode,
    max_tokens: int,
    messages: Sequence[Mapping[str, str]] = (),
    privacy: Privacy | None = None,
) -> Ask:
    """Return the ask for a prompt, and the chat that it was made from, under these settings."""
    return Ask(
        draw_request_id(),
        prompt_token_ids,
        max_tokens,
        loaded.sampling_defaults.params(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            presence_penalty=settings.presence_penalty,
            frequency_penalty=settings.frequency_penalty,
            seed=draw_seed() if settings.seed is None else settings.seed,
        ),
        settings.stop_strings,
        continues_prompt=settings.raw or not knows_roles(loaded),
        mode=mode,
        promise=replace(
            settings.device.promise, spare_device=settings.battery.spares(read_battery())
        ),
        messages=tuple(messages),
        privacy=privacy,
    )


async def chat(
    settings: ChatSettings, link: CloudLink | None, console: Console, notices: Console
) -> Outcome:
    """Answer one prompt; what the user should know goes to `notices`, if possible beforehand.

    Raises:
        PdError: no side can answer; everything committed was shown before.
    """
    device = await load(settings, link)
    try:
        prompt = prompt_token_ids(
            device.loaded,
            settings.prompt or "",
            raw=settings.raw,
            max_context_tokens=device.client.max_context_tokens,
        )
        privacy = await device.judge.judge(words_of(device.loaded, settings.prompt or "", prompt))
        said = [] if settings.raw else [{"role": "user", "content": settings.prompt or ""}]
        most, mode = settings.max_tokens, settings.mode
        ask = asked(settings, device.loaded, prompt, mode, most, said, privacy)
        session = device.client.session(ask)
        with noted(session, notices):
            await show(session, console, tint=settings.show_origin)
        return session.outcome
    finally:
        await device.close()


def words_of(loaded: ServedModel, said: str, prompt: tuple[int, ...]) -> Words:
    """Return what the rules for privacy are asked about: this text, and the prompt made of it."""
    read = loaded.tokenizer.decode(prompt, skip_special_tokens=False)
    return Words([said], [read], len(prompt))


@contextmanager
def noted(session: Session, notices: Console) -> Iterator[None]:
    """Print an answer's notes, a line each: the known ones before the block, the others after."""
    notes = session.outcome.notes
    num_known = len(notes)
    _say_notes(notices, notes)
    yield
    _say_notes(notices, notes[num_known:])


def _say_notes(notices: Console, notes: Iterable[str]) -> None:
    for note in notes:
        notices.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)


async def load(settings: ChatSettings, link: CloudLink | None) -> Device:
    """Load the model, measure this device and meet the cloud; a terminal shows the progress.

    Raises:
        PdError: the model cannot be loaded or run.
    """
    with LoadingLine(Console(stderr=True)) as progress:
        return await open_device(settings.device, link, progress, settings.battery)


async def show(session: Session, console: Console, *, tint: bool) -> None:
    """Print an answer as it comes, each token at its time.

    Args:
        session: makes it; cancelled with this call.
        console: where to print.
        tint: colour each token by its origin.

    Raises:
        PdError: no side can continue; everything committed was shown before.
        ConfigError: the text cannot be written.
    """
    async with aclosing(session.run()) as answer:
        async for shown in answer:
            assert isinstance(shown, Shown), "the ask is not watched"
            plain = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", shown.text)
            text = plain if console.is_terminal else shown.text
            style = _STYLES[shown.origin] if tint else ""
            _print(console, Text(text, style), end="")
    _print(console, Text())


def _print(console: Console, text: Text, end: str = "\n") -> None:
    try:
        console.print(text, end=end, soft_wrap=True)
    except OSError as error:
        raise ConfigError(
            f"the answer cannot be written ({error.strerror}); make room where it goes"
        ) from error


def summary(outcome: Outcome) -> Text:
    """Return the line of figures under an answer: tokens per side, and how even the pace was."""
    text = Text()
    text.append("cloud ", _STYLES[Origin.CLOUD])
    text.append(f"{outcome.cloud_tokens} tokens  ")
    text.append("device ", _STYLES[Origin.DEVICE])
    text.append(f"{outcome.device_tokens} tokens  ")
    if outcome.unused_tokens:
        text.append(f"unused {outcome.unused_tokens}  ")
    if outcome.disagreed:
        text.append(f"disagreed {outcome.disagreed}  ", "red")
    handoff = outcome.handoff_position
    text.append(
        f"TTFT {_ms(outcome.ttft_s)}  TPOT {_ms(outcome.tpot_s)}  "
        f"largest gap {_ms(outcome.largest_gap_s)}  "
        f"handoff {'none' if handoff is None else f'at token {handoff}'}  "
        f"{outcome.exactness}"
    )
    if outcome.left_out_tokens:
        text.append(f"  left out {outcome.left_out_tokens} prompt tokens")
    if outcome.privacy.local_only:
        text.append(f"  {outcome.privacy.words}")
    elif not outcome.sent_to_cloud and outcome.cloud_reason is not CloudReason.NO_CLOUD:
        text.append(f"  nothing sent: {outcome.cloud_reason.words}")
    if outcome.cloud_cost is not None:
        text.append(f"  cost {outcome.cloud_cost:.6g}")
    return text


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"
