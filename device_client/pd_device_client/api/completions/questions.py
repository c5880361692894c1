"""From a request's parameters to a planned answer."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from pd_core.errors import (
    InvalidConstraint,
    InvalidRequest,
    PdError,
    PromptTooLong,
    TokenLimitTooHigh,
    TokenOutOfVocabulary,
)
from pd_core.grammar.matcher import Matcher
from pd_core.sampling_params import MAX_SEED
from pd_device_client.api.completions.answer import Answer, Choice, Telling
from pd_device_client.api.completions.messages import plain_messages
from pd_device_client.api.completions.parameters import (
    MAX_CHOICES,
    ChatParameters,
    CompletionParameters,
    Extension,
    Message,
)
from pd_device_client.api.completions.response_format import check_form, refused_form
from pd_device_client.api.completions.shapes import CHAT, TEXT
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.places import Places
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.contract.ask import Ask, Mode, Promise, draw_request_id
from pd_device_client.contract.outcome import Outcome
from pd_device_client.device.battery import Battery, read_battery
from pd_device_client.device.device import Device, draw_seed
from pd_device_client.device.prompt import conversation_token_ids, text_token_ids
from pd_device_client.session.reading_pace import usual_gap_s

__all__ = ["Questions", "chat_prompt"]

_COMPLETION_TOKENS = 16  # OpenAI's default for completions


class Questions:
    """Turns requests into answers.

    Args:
        settings: the defaults for requests.
        places: taken while an answer runs.
        on_end: called with every answer's outcome when it has ended, for any reason.
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

    async def answer(
        self, device: Device, asked: ChatParameters | CompletionParameters, asked_s: float
    ) -> Answer:
        """Plan the answer to a chat, or to one or several prompts.

        Args:
            device: makes the answer.
            asked: the request.
            asked_s: its arrival on the loop's clock.

        Raises:
            PdError: it cannot be served; nothing was started.
        """
        _check_stops(asked, device.loaded.num_token_ids)
        form = _begun(device, asked)
        prompts = await _prompts(device, asked)
        if form is not None:
            await check_form(form, asked.constraint_name)
        if len(prompts) * asked.num_choices > MAX_CHOICES:
            raise Refusal(
                f"{len(prompts)} prompts with n = {asked.num_choices} are more than "
                f"{MAX_CHOICES} answers; ask for fewer",
                "n",
            )
        choices = list[Choice]()
        for ask in self._asks(device, asked, prompts, asked_s):
            try:
                session = device.client.session(ask)
            except InvalidConstraint as error:
                raise refused_form(asked.constraint_name, error) from error
            except PdError as error:
                raise _blamed(error, _prompt_name(asked), asked.limit[1]) from error
            again = len(choices) % asked.num_choices > 0
            choices.append(Choice(len(choices), session, 0 if again else len(ask.prompt_token_ids)))
        shape = CHAT if isinstance(asked, ChatParameters) else TEXT
        envelope = {
            "id": shape.id_prefix + uuid.uuid4().hex,
            "created": self._unix_time_s(),
            "model": device.loaded.name,
            "system_fingerprint": f"fp_{device.loaded.fingerprints.weights[:12]}",
        }
        options, extension = asked.stream_options, asked.extension
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

    def _asks(
        self,
        device: Device,
        asked: ChatParameters | CompletionParameters,
        prompts: Sequence[tuple[int, ...]],
        asked_s: float,
    ) -> Iterator[Ask]:
        """Yield n asks for each prompt, with consecutive seeds."""
        client, extension = device.client, asked.extension
        mode = self._mode(extension)
        # A request that names its mode means it, whatever the battery says.
        spare = extension.mode is None and self._settings.battery.spares(self._battery())
        promise = _promise(client.promise, extension, mode, spare_device=spare)
        chat, constraint = isinstance(asked, ChatParameters), asked.constraint
        messages = plain_messages(asked.messages) if isinstance(asked, ChatParameters) else []
        usual_tokens = self._settings.max_tokens if chat else _COMPLETION_TOKENS
        for prompt in prompts:
            max_tokens = asked.limit[0]
            if max_tokens is None:  # the default shrinks to the room in the context
                max_tokens = max(min(usual_tokens, client.room_tokens(len(prompt), mode)), 1)
            seed = draw_seed() if asked.fixed_seed is None else asked.fixed_seed
            for i in range(asked.num_choices):
                yield Ask(
                    draw_request_id(),
                    prompt,
                    max_tokens,
                    device.loaded.sampling_defaults.params(
                        seed=(seed + i) & MAX_SEED,
                        ignore_eos=bool(asked.ignore_eos),
                        constraint=constraint,
                        **asked.sampling,
                    ),
                    asked.stops,
                    stop_token_ids=tuple(dict.fromkeys(asked.stop_token_ids or ())),
                    continues_prompt=not chat,
                    skip_special_tokens=asked.skip_special_tokens is not False,
                    mode=mode,
                    promise=promise,
                    asked_s=asked_s,
                    read_along=bool(asked.stream),
                    watched=extension.events and bool(asked.stream),
                    messages=tuple(messages),
                )

    def _mode(self, extension: Extension) -> Mode:
        standing = self._settings.mode
        if standing is Mode.DEVICE_ONLY:
            return standing  # a request may not send anything off the device
        if extension.parsed_mode is not None:
            return extension.parsed_mode
        return standing


async def chat_prompt(
    device: Device,
    messages: Sequence[Message],
    special: bool | None = None,
    max_context_tokens: int | None = None,
) -> tuple[int, ...]:
    """Return a chat's token ids; the template may take seconds, so it runs in a worker thread.

    Args:
        device: its model's template is used.
        messages: the chat.
        special: add the tokenizer's special tokens; None: only without a template.
        max_context_tokens: a text that cannot fit so many is refused early; None: none is.

    Raises:
        Refusal: a message is wrong, the template refuses them, or they cannot fit.
    """
    plain = plain_messages(messages)
    try:
        return await device.encoded(
            sum(len(message["content"]) for message in plain),
            partial(
                conversation_token_ids,
                device.loaded,
                plain,
                special=special,
                max_context_tokens=max_context_tokens,
            ),
            renders=device.loaded.chat_template is not None,
        )
    except (InvalidRequest, PromptTooLong) as error:
        raise _blamed(error, "messages") from error


def _check_stops(asked: ChatParameters | CompletionParameters, num_token_ids: int) -> None:
    """Refuse a stop token that no answer can have, because it would silently never stop one."""
    for index, token_id in enumerate(asked.stop_token_ids or ()):
        if token_id >= num_token_ids:
            name = f"stop_token_ids[{index}]"
            raise Refusal(
                f"{name} is {token_id}; ids of this model lie below {num_token_ids}", name
            )


def _begun(device: Device, asked: ChatParameters | CompletionParameters) -> Matcher | None:
    """Begin to compile the form asked for, if there is one; the prompt is read meanwhile."""
    constraint = asked.constraint
    if constraint is None or device.grammars is None:
        return None
    return device.grammars.matcher(constraint)


def _prompt_name(asked: ChatParameters | CompletionParameters) -> str:
    return "messages" if isinstance(asked, ChatParameters) else "prompt"


async def _prompts(
    device: Device, asked: ChatParameters | CompletionParameters
) -> list[tuple[int, ...]]:
    if isinstance(asked, ChatParameters):
        longest = device.client.max_context_tokens
        return [await chat_prompt(device, asked.messages, asked.add_special_tokens, longest)]
    prompt, special = asked.prompt, asked.add_special_tokens is not False
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
    encode = partial(
        text_token_ids,
        device.loaded,
        text,
        special=special,
        max_context_tokens=device.client.max_context_tokens,
    )
    try:
        return await device.encoded(len(text), encode)
    except (InvalidRequest, PromptTooLong) as error:
        raise _blamed(error, where) from error


def _promise(standing: Promise, extension: Extension, mode: Mode, *, spare_device: bool) -> Promise:
    """Return the promise: a request may change its times, but only tighten privacy and caps."""
    if extension.reading_wpm is not None and extension.pace_s is not None:
        raise Refusal("pd.pace_s and pd.reading_wpm are two paces; give one", "pd.reading_wpm")
    asked = {
        name: value
        for name in ("pace_s", "ttft_s", "largest_gap_s")
        if (value := getattr(extension, name)) is not None
    }
    if extension.reading_wpm is not None:
        asked["pace_s"] = usual_gap_s(extension.reading_wpm)
    if "pace_s" in asked:
        asked["reading_wpm"] = extension.reading_wpm
    caps = (standing.max_cloud_tokens, extension.max_cloud_tokens)
    try:
        promise = replace(
            standing,
            **asked,
            max_cloud_tokens=min((cap for cap in caps if cap is not None), default=None),
            local_only=standing.local_only or extension.privacy is not None,
            spare_device=spare_device,
        )
        promise.check_mode(mode)
    except InvalidRequest as error:
        raise Refusal(str(error), "pd") from error
    return promise


def _blamed(error: PdError, where: str, limit_name: str = "max_tokens") -> PdError:
    """Return an error of a lower layer as a refusal that names the parameter at fault.

    Args:
        error: the error.
        where: the prompt's parameter.
        limit_name: the token limit's parameter.
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
