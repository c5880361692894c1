"""From a request's parameters to an answer that can be carried."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pd_core.errors import (
    InvalidRequest,
    PdError,
    PromptTooLong,
    TokenLimitTooHigh,
    TokenOutOfVocabulary,
)
from pd_core.sampling_params import MAX_SEED
from pd_device_client.api.answer import Answer, Choice, Telling
from pd_device_client.api.conversation import plain_messages
from pd_device_client.api.errors import Refusal
from pd_device_client.api.parameters import (
    MAX_CHOICES,
    ChatParameters,
    CompletionParameters,
    Extension,
    Message,
    Sampled,
)
from pd_device_client.api.places import Places
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.api.shapes import CHAT, TEXT, Shape
from pd_device_client.api.watch import Watch
from pd_device_client.contract.outcome import Outcome
from pd_device_client.device.battery import Battery, read_battery
from pd_device_client.device.device import Device, draw_seed
from pd_device_client.device.prompt import conversation_token_ids, text_token_ids
from pd_device_client.planning.planner import Mode, Promise

__all__ = ["Questions", "chat_prompt"]

_COMPLETION_TOKENS = 16  # OpenAI's default for completions; for chats it is what fits


@dataclass(frozen=True, slots=True)
class _Limit:
    """A token limit of an answer.

    Attributes:
        tokens: at most so many.
        name: of the parameter that gave it.
        exact: whether the request asked for it; else it is less where the context has less room.
    """

    tokens: int
    name: str = "max_tokens"
    exact: bool = True


class Questions:
    """Makes answers of requests.

    Args:
        settings: what holds where a request is silent.
        places: taken while an answer is carried.
        on_end: called with every answer's outcome when it has ended, however it did.
        unix_time_s: stamps answers.
        battery: reads this machine's battery.
    """

    def __init__(
        self,
        settings: AnswerSettings,
        places: Places,
        on_end: Callable[[Outcome], None],
        unix_time_s: Callable[[], int],
        battery: Callable[[], Battery | None] = read_battery,
    ) -> None:
        self._settings = settings
        self._places = places
        self._on_end = on_end
        self._unix_time_s = unix_time_s
        self._battery = battery

    async def chat(self, device: Device, asked: ChatParameters) -> Answer:
        """Plan the answer to a chat.

        Raises:
            PdError: it cannot be carried; nothing was started.
        """
        prompt = await chat_prompt(device, asked.messages, asked.add_special_tokens)
        limit = _Limit(self._settings.max_tokens, exact=False)
        if asked.max_completion_tokens is not None:
            limit = _Limit(asked.max_completion_tokens, "max_completion_tokens")
        elif asked.max_tokens is not None:
            limit = _Limit(asked.max_tokens)
        return self._answer(device, asked, CHAT, [prompt], limit, where="messages")

    async def completion(self, device: Device, asked: CompletionParameters) -> Answer:
        """Plan the completion of one or several prompts.

        Raises:
            PdError: it cannot be carried; nothing was started.
        """
        prompts = await _prompts(
            device, asked.prompt, special=asked.add_special_tokens is not False
        )
        limit = _Limit(_COMPLETION_TOKENS, exact=False)
        if asked.max_tokens is not None:
            limit = _Limit(asked.max_tokens)
        return self._answer(device, asked, TEXT, prompts, limit, where="prompt")

    def _answer(
        self,
        device: Device,
        asked: Sampled,
        shape: Shape,
        prompts: Sequence[tuple[int, ...]],
        limit: _Limit,
        *,
        where: str,
    ) -> Answer:
        if len(prompts) * asked.num_choices > MAX_CHOICES:
            raise Refusal(
                f"{len(prompts)} prompts with n = {asked.num_choices} are more than "
                f"{MAX_CHOICES} answers; ask for fewer",
                "n",
            )
        extension = asked.pd or Extension()
        mode = self._mode(device, extension)
        choices = list[Choice]()
        for prompt in prompts:
            room = device.client.room_tokens(len(prompt), mode)
            fitting = (
                limit if limit.exact else replace(limit, tokens=max(min(limit.tokens, room), 1))
            )
            choices += self._choices(device, asked, prompt, fitting, mode, where, len(choices))
        envelope = {
            "id": shape.id_prefix + uuid.uuid4().hex,
            "created": self._unix_time_s(),
            "model": device.loaded.name,
            "system_fingerprint": f"fp_{device.loaded.fingerprints.weights[:12]}",
        }
        options = asked.stream_options
        telling = Telling(
            usage=bool(options and options.include_usage),
            usage_in_every_chunk=bool(options and options.continuous_usage_stats),
            tokens=extension.tokens or extension.events,
        )
        return Answer(
            shape,
            envelope,
            choices,
            telling,
            admitted=self._places.taking(len(choices)),
            on_end=self._on_end,
        )

    def _mode(self, device: Device, extension: Extension) -> Mode:
        standing = self._settings.mode
        if standing is Mode.DEVICE_ONLY:
            return standing  # what is to stay on the device stays, whoever asks
        if extension.parsed_mode is not None:
            return extension.parsed_mode
        client = device.client
        # One that cannot carry this device's answers must not turn them into errors.
        usable = (
            client.info is not None
            and not client.handshake.mismatch
            and not client.cloud_left_alone
        )
        return self._settings.battery.mode(standing, self._battery(), cloud_usable=usable)

    def _choices(
        self,
        device: Device,
        asked: Sampled,
        prompt: tuple[int, ...],
        limit: _Limit,
        mode: Mode,
        where: str,
        first_index: int,
    ) -> list[Choice]:
        """Plan the n answers to one prompt; the seeds of the second and on follow the first's."""
        extension = asked.pd or Extension()
        first_seed = draw_seed() if asked.seed is None else asked.seed
        choices = []
        for i in range(asked.num_choices):
            seed = (first_seed + i) & MAX_SEED
            sampling = device.loaded.sampling_defaults.params(
                seed=seed,
                temperature=asked.temperature,
                top_k=None if asked.top_k is None else max(asked.top_k, 0),
                top_p=asked.top_p,
                ignore_eos=bool(asked.ignore_eos),
                dry_multiplier=asked.dry_multiplier,
                dry_base=asked.dry_base,
                dry_allowed_length=asked.dry_allowed_length,
            )
            watch = Watch() if extension.events and asked.stream else None
            try:
                session = device.answer(
                    prompt,
                    mode=mode,
                    max_tokens=limit.tokens,
                    sampling=sampling,
                    stop_strings=asked.stops,
                    promise=_promise(device.client.promise, extension),
                    read_along=bool(asked.stream),
                    watcher=watch,
                )
            except PdError as error:
                raise _blamed(error, where, limit.name) from error
            num_prompt = 0 if i else len(prompt)
            choices.append(Choice(first_index + i, session, seed, num_prompt, watch))
        return choices


async def chat_prompt(
    device: Device, messages: Sequence[Message], special: bool | None = None
) -> tuple[int, ...]:
    """Return a chat's token ids; the template runs in a worker thread, as it may take seconds.

    Raises:
        Refusal: a message is wrong, or the template refuses them.
    """
    plain = plain_messages(messages)
    try:
        return await device.encoded(
            sum(len(message["content"]) for message in plain),
            partial(conversation_token_ids, device.loaded, plain, special=special),
        )
    except InvalidRequest as error:
        raise _blamed(error, "messages") from error


async def _prompts(
    device: Device, prompt: str | list[int] | list[str] | list[list[int]], *, special: bool
) -> list[tuple[int, ...]]:
    if isinstance(prompt, str):
        return [await _text_prompt(device, prompt, "prompt", special=special)]
    if isinstance(prompt[0], int):
        return [tuple(token_id for token_id in prompt if isinstance(token_id, int))]
    prompts = list[tuple[int, ...]]()
    for i, part in enumerate(prompt):
        if isinstance(part, str):
            prompts.append(await _text_prompt(device, part, f"prompt[{i}]", special=special))
        elif isinstance(part, list):
            prompts.append(tuple(part))
    return prompts


async def _text_prompt(device: Device, text: str, where: str, *, special: bool) -> tuple[int, ...]:
    encode = partial(text_token_ids, device.loaded, text, special=special)
    try:
        return await device.encoded(len(text), encode)
    except InvalidRequest as error:
        raise _blamed(error, where) from error


def _promise(standing: Promise, extension: Extension) -> Promise:
    return Promise(
        standing.pace_s if extension.pace_s is None else extension.pace_s,
        standing.ttft_s if extension.ttft_s is None else extension.ttft_s,
    )


def _blamed(error: PdError, where: str, limit_name: str = "max_tokens") -> PdError:
    """Name the parameter of an error that a deeper layer found.

    Args:
        where: the prompt's parameter.
        limit_name: the token limit's.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, PromptTooLong):
        return Refusal(str(error), where, code="context_length_exceeded")
    if isinstance(error, TokenLimitTooHigh):
        return Refusal(f"{limit_name}: {error}", limit_name, code="context_length_exceeded")
    if isinstance(error, TokenOutOfVocabulary) or type(error) is InvalidRequest:
        return Refusal(str(error), where)
    return error
