"""`pd-device chat`: one prompt, its answer streamed to the terminal, and what came of it."""

import secrets
import uuid
from contextlib import aclosing
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.text import Text

from pd_core.errors import InvalidRequest
from pd_core.models import LoadedModel, load_model
from pd_core.planner import Mode
from pd_core.profiles import SpeedProfile
from pd_core.sampling_params import SamplingParams
from pd_device_client.client import DeviceClient
from pd_device_client.local_engine import TorchLocalEngine
from pd_device_client.outcome import GenerationRequest, Origin, Outcome
from pd_device_client.ports import CloudLink, LocalEngine
from pd_device_client.throttled_engine import ThrottledEngine

__all__ = ["ChatSettings", "chat", "prompt_token_ids", "summary"]

# Readable on dark and light terminals alike.
_STYLES = {Origin.CLOUD: "dodger_blue1", Origin.DEVICE: "green3"}


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What the command line says.

    Attributes:
        prompt: the text.
        model: as `load_model` takes it.
        mode: who is to carry the answer.
        pace_s: the gap between shown tokens.
        ttft_s: the first token's latest instant, or None.
        max_tokens: token limit.
        temperature, top_k, top_p: sampling; the seed is drawn when None.
        stop_strings: end the answer before these.
        show_origin: tint tokens by their maker and end with a line of figures.
        throttle: slow the local engine down to this profile.
        num_threads: torch threads; None leaves torch's default.
        fast_numerics: the faster arithmetic that is not reproducible.
        raw: continue the prompt as it is, whatever chat template the model has.
    """

    prompt: str
    model: str
    mode: Mode
    pace_s: float
    max_tokens: int
    ttft_s: float | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop_strings: tuple[str, ...] = ()
    show_origin: bool = False
    throttle: SpeedProfile | None = None
    num_threads: int | None = None
    fast_numerics: bool = False
    raw: bool = False


async def chat(settings: ChatSettings, link: CloudLink | None, console: Console) -> Outcome:
    """Answer one prompt.

    Raises:
        PdError: no side can answer; what was committed was shown before.
    """
    notices = Console(stderr=True)
    with notices.status("loading the model and measuring this device"):
        if settings.num_threads is not None:
            # The probe that comes with loading must see the number of threads in use.
            torch.set_num_threads(settings.num_threads)
        loaded = load_model(settings.model, fast=settings.fast_numerics)
        engine: LocalEngine = TorchLocalEngine(loaded, num_threads=settings.num_threads)
        if settings.throttle is not None:
            engine = ThrottledEngine(engine, settings.throttle)
        client = DeviceClient(
            cloud=link, engine=engine, pace_s=settings.pace_s, ttft_s=settings.ttft_s
        )
        await client.start()
    try:
        return await _answer(settings, client, loaded, console)
    finally:
        await client.close()


async def _answer(
    settings: ChatSettings, client: DeviceClient, loaded: LoadedModel, console: Console
) -> Outcome:
    seed = secrets.randbits(64) if settings.seed is None else settings.seed
    request = GenerationRequest(
        request_id=uuid.uuid4().hex[:12],
        prompt_token_ids=prompt_token_ids(loaded, settings.prompt, raw=settings.raw),
        max_tokens=settings.max_tokens,
        sampling=SamplingParams(settings.temperature, settings.top_k, settings.top_p, seed=seed),
        stop_strings=settings.stop_strings,
    )
    session = client.session(
        request, settings.mode, text=loaded.tokenizer.stream(settings.stop_strings)
    )
    async with aclosing(session.run()) as answer:
        async for shown in answer:
            style = _STYLES[shown.origin] if settings.show_origin else ""
            console.print(Text(shown.text, style), end="", soft_wrap=True)
    console.print()
    return session.outcome


def prompt_token_ids(loaded: LoadedModel, text: str, *, raw: bool) -> tuple[int, ...]:
    """Return the ids of a prompt: a user's message by the model's chat template, or plain text.

    A template writes the beginning of the sequence itself where the model wants one. A plain text
    (`raw`, or a model without a template) gets what the tokenizer puts before it.

    Raises:
        InvalidRequest: the text is empty or not valid UTF-8, or the template refuses it.
    """
    if not text:
        raise InvalidRequest("the prompt is empty; it needs at least one token")
    if raw or loaded.chat_template is None:
        return tuple(loaded.tokenizer.encode_prompt(text))
    message = {"role": "user", "content": text}
    return tuple(loaded.tokenizer.encode(loaded.chat_template.render([message])))


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
