"""`pd-device chat`: one prompt, its answer streamed to the terminal, and what came of it."""

from contextlib import aclosing
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from pd_core.planner import Mode
from pd_device_client.device import Device, DeviceSettings, draw_seed, open_device
from pd_device_client.outcome import Origin, Outcome
from pd_device_client.ports import CloudLink
from pd_device_client.prompt import prompt_token_ids

__all__ = ["ChatSettings", "chat", "summary"]

# Readable on dark and light terminals alike.
_STYLES = {Origin.CLOUD: "dodger_blue1", Origin.DEVICE: "green3"}


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What the command line says.

    Attributes:
        prompt: the text.
        device: the model, the promise, and how the device runs.
        mode: who is to carry the answer.
        max_tokens: token limit.
        temperature, top_k, top_p: sampling; the model's own where None.
        seed: drawn when None.
        stop_strings: end the answer before these.
        show_origin: tint tokens by their maker and end with a line of figures.
        raw: continue the prompt as it is, whatever chat template the model has.
    """

    prompt: str
    device: DeviceSettings
    mode: Mode
    max_tokens: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_strings: tuple[str, ...] = ()
    show_origin: bool = False
    raw: bool = False


async def chat(settings: ChatSettings, link: CloudLink | None, console: Console) -> Outcome:
    """Answer one prompt.

    Raises:
        PdError: no side can answer; what was committed was shown before.
    """
    notices = Console(stderr=True)
    with notices.status("loading the model and measuring this device"):
        device = await open_device(settings.device, link)
    try:
        return await _answer(settings, device, console)
    finally:
        await device.close()


async def _answer(settings: ChatSettings, device: Device, console: Console) -> Outcome:
    session = device.answer(
        prompt_token_ids(device.loaded, settings.prompt, raw=settings.raw),
        mode=settings.mode,
        max_tokens=settings.max_tokens,
        sampling=device.loaded.sampling_defaults.params(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=draw_seed() if settings.seed is None else settings.seed,
        ),
        stop_strings=settings.stop_strings,
    )
    async with aclosing(session.run()) as answer:
        async for shown in answer:
            style = _STYLES[shown.origin] if settings.show_origin else ""
            console.print(Text(shown.text, style), end="", soft_wrap=True)
    console.print()
    return session.outcome


def summary(outcome: Outcome) -> Text:
    """The line of figures under an answer: who made what, and how even it was."""
    text = Text()
    text.append("cloud ", _STYLES[Origin.CLOUD])
    text.append(f"{outcome.cloud_tokens} tokens  ")
    text.append("device ", _STYLES[Origin.DEVICE])
    text.append(f"{outcome.device_tokens} tokens  ")
    if outcome.disagreed:
        text.append(f"disagreed {outcome.disagreed}  ", "red")
    handoff = outcome.handoff_position
    text.append(
        f"TTFT {_ms(outcome.ttft_s)}  TPOT {_ms(outcome.tpot_s)}  "
        f"largest gap {_ms(outcome.largest_gap_s)}  "
        f"handoff {'none' if handoff is None else f'at token {handoff}'}  "
        f"{outcome.exactness}"
    )
    return text


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"
