"""From a request's parameters to a planned answer."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pd_core.errors import (
    InvalidConstraint,
    InvalidRequest,
    PdError,
)
from pd_core.grammar.matcher import Matcher
from pd_core.sampling_params import MAX_SEED
from pd_device_client.api.completions.answer import Answer, Telling
from pd_device_client.api.completions.checks import check_ids, check_together
from pd_device_client.api.completions.parameters import (
    MAX_CHOICES,
    ChatParameters,
    CompletionParameters,
    Extension,
)
from pd_device_client.api.completions.privacy import judged
from pd_device_client.api.completions.prompts import (
    blamed,
    plain_messages,
    prompt_name,
    prompts_of,
)
from pd_device_client.api.completions.response_format import check_form, refused_form
from pd_device_client.api.completions.run import Choice, Run
from pd_device_client.api.completions.running import Running
from pd_device_client.api.completions.shapes import CHAT, TEXT
from pd_device_client.api.completions.told_beside import ToldBeside
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.places import Places
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.api.tools.answer_parser import AnswerParsing
from pd_device_client.contract.ask import Ask, Mode, Promise, draw_request_id
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.privacy import Privacy
from pd_device_client.device.battery import Battery, read_battery
from pd_device_client.device.device import Device, draw_seed
from pd_device_client.session.reading_pace import usual_gap_s

__all__ = ["Questions"]

_COMPLETION_TOKENS = 16  # OpenAI's default for completions


class Questions:
    """Turns requests into answers.

    Args:
        settings: the defaults for requests.
        places: taken while an answer runs.
        on_end: called with every answer's outcome when it has ended, for any reason.
        unix_time_s: stamps answers.
        battery: reads this machine's battery.

    Attributes:
        running: the answers in progress.
        unix_time_s: as given.
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
        self.unix_time_s = unix_time_s
        self.running = Running()
        self._battery = battery

    async def answer(
        self, device: Device, asked: ChatParameters | CompletionParameters, asked_s: float
    ) -> Answer:
        """Plan the answer to a chat, or to one or several prompts, in OpenAI's form.

        Args:
            device: makes the answer.
            asked: the request.
            asked_s: its arrival on the loop's clock.

        Raises:
            PdError: it cannot be served; nothing was started.
        """
        shape = CHAT if isinstance(asked, ChatParameters) else TEXT
        run = await self.run(device, asked, asked_s, shape.id_prefix + uuid.uuid4().hex)
        envelope = {
            "id": run.answer_id,
            "created": self.unix_time_s(),
            "model": device.loaded.name,
            "system_fingerprint": f"fp_{device.loaded.fingerprints.weights[:12]}",
            **run.beside,
        }
        options, extension = asked.stream_options, asked.extension
        telling = Telling(
            usage=bool(options and options.include_usage),
            usage_in_every_chunk=bool(options and options.continuous_usage_stats),
            tokens=extension.tokens or extension.events,
        )
        return Answer(shape, envelope, run, telling)

    async def run(
        self,
        device: Device,
        asked: ChatParameters | CompletionParameters,
        asked_s: float,
        answer_id: str,
    ) -> Run:
        """Plan the choices of an answer, to be sent in any form.

        Args:
            device: makes the answer.
            asked: the request.
            asked_s: its arrival on the loop's clock.
            answer_id: the id that the client sees.

        Raises:
            PdError: it cannot be served; nothing was started.
        """
        check_ids(asked, device.loaded.num_token_ids)
        check_together(asked)
        form = _begun(device, asked)
        prompts = await self.prompts(device, asked)
        if form is not None:
            await check_form(form, asked.constraint_name)
        if len(prompts) * asked.num_choices > MAX_CHOICES:
            raise Refusal(
                f"{len(prompts)} prompts with n = {asked.num_choices} are more than "
                f"{MAX_CHOICES} answers; ask for fewer",
                "n",
            )
        parsing = self._parsing(device, asked) if isinstance(asked, ChatParameters) else None
        told = ToldBeside(device, asked, prompts)
        choices = list[Choice]()
        privacy = await judged(device, asked, prompts)
        for ask in self._asks(device, asked, prompts, asked_s, privacy):
            try:
                session = device.client.session(ask)
            except InvalidConstraint as error:
                raise refused_form(asked.constraint_name, error) from error
            except PdError as error:
                raise blamed(error, prompt_name(asked), asked.limit[1]) from error
            again = len(choices) % asked.num_choices > 0
            choice = Choice(len(choices), session, 0 if again else len(ask.prompt_token_ids))
            choice = await told.of(choice, len(choices) // asked.num_choices)
            choices.append(choice if parsing is None else _parsed(choice, parsing))
        return Run(
            answer_id,
            choices,
            places=self._places,
            running=self.running,
            on_end=self._on_end,
            beside=await told.of_all(),
        )

    async def prompts(
        self, device: Device, asked: ChatParameters | CompletionParameters
    ) -> list[tuple[int, ...]]:
        """Return the token ids of each prompt of a request.

        Raises:
            Refusal: a prompt is wrong, or far too long.
        """
        return await prompts_of(device, asked)

    def _asks(
        self,
        device: Device,
        asked: ChatParameters | CompletionParameters,
        prompts: Sequence[tuple[int, ...]],
        asked_s: float,
        privacy: Privacy,
    ) -> Iterator[Ask]:
        """Yield n asks for each prompt, with consecutive seeds."""
        client, extension = device.client, asked.extension
        mode = self._mode(extension)
        # A request that names its mode means it, whatever the battery says.
        spare = extension.mode is None and self._settings.battery.spares(self._battery())
        promise = _promise(client.promise, extension, mode, spare_device=spare)
        chat, constraint = isinstance(asked, ChatParameters), asked.constraint
        messages = plain_messages(asked) if isinstance(asked, ChatParameters) else ()
        group = draw_request_id()  # what the caps are for is the whole request
        usual_tokens = self._settings.max_tokens if chat else _COMPLETION_TOKENS
        for prompt in prompts:
            max_tokens = asked.limit[0]
            if max_tokens is None:  # the default shrinks to the room in the context
                max_tokens = max(min(usual_tokens, client.room_tokens(len(prompt), mode)), 1)
            seed = draw_seed() if asked.fixed_seed is None else asked.fixed_seed
            for i in range(asked.num_choices):
                params = device.loaded.sampling_defaults.params(
                    seed=(seed + i) & MAX_SEED,
                    ignore_eos=bool(asked.ignore_eos),
                    constraint=constraint,
                    **asked.sampling,
                )
                yield Ask(
                    draw_request_id(),
                    prompt,
                    max_tokens,
                    replace(
                        params,
                        logit_bias=asked.biases,
                        min_tokens=asked.min_tokens or 0,
                        late_token_ids=asked.late_token_ids,
                        logprobs=asked.num_logprobs,
                    ),
                    asked.stops,
                    stop_token_ids=tuple(dict.fromkeys(asked.stop_token_ids or ())),
                    continues_prompt=not chat,
                    skip_special_tokens=asked.skip_special_tokens is not False,
                    cache_salt=asked.cache_salt or "",
                    mode=mode,
                    promise=promise,
                    asked_s=asked_s,
                    read_along=bool(asked.stream),
                    watched=extension.events and bool(asked.stream),
                    messages=messages,
                    privacy=privacy,
                    group=group,
                )

    def _parsing(self, device: Device, asked: ChatParameters) -> AnswerParsing:
        settings = self._settings
        return AnswerParsing(
            device.loaded,
            asked.offer,
            formed=asked.constraint is not None,
            tool_parser=settings.tool_parser,
            reasoning=settings.reasoning_parser,
        )

    def _mode(self, extension: Extension) -> Mode:
        standing = self._settings.mode
        if standing is Mode.DEVICE_ONLY:
            return standing  # a request may not send anything off the device
        if extension.parsed_mode is not None:
            return extension.parsed_mode
        return Mode.DEVICE_ONLY if extension.stays_here else standing


def _parsed(choice: Choice, parsing: AnswerParsing) -> Choice:
    ask = choice.session.ask
    marks = parsing.marks(ask.stop_strings) if ask.skip_special_tokens else {}
    parser = parsing.parser(ask.request_id, ask.prompt_token_ids)
    return replace(choice, parser=parser, marks=marks)


def _begun(device: Device, asked: ChatParameters | CompletionParameters) -> Matcher | None:
    """Begin to compile the form asked for, if there is one; the prompt is read meanwhile."""
    constraint = asked.constraint
    if constraint is None or device.grammars is None:
        return None
    return device.grammars.matcher(constraint)


def _promise(standing: Promise, extension: Extension, mode: Mode, *, spare_device: bool) -> Promise:
    """Return the promise: a request may change its times, but only tighten privacy and caps."""
    if extension.reading_wpm is not None and extension.pace_s is not None:
        raise Refusal("pd.pace_s and pd.reading_wpm are two paces; give one", "pd.reading_wpm")
    asked = {
        name: value
        for name in ("pace_s", "ttft_s", "largest_gap_s", "quality_floor")
        if (value := getattr(extension, name)) is not None
    }
    if extension.reading_wpm is not None:
        asked["pace_s"] = usual_gap_s(extension.reading_wpm)
    if "pace_s" in asked:
        asked["reading_wpm"] = extension.reading_wpm
    caps = (standing.max_cloud_tokens, extension.max_cloud_tokens)
    costs = (standing.max_cloud_cost, extension.max_cloud_cost)
    try:
        promise = replace(
            standing,
            **asked,
            max_cloud_tokens=min((cap for cap in caps if cap is not None), default=None),
            max_cloud_cost=min((cost for cost in costs if cost is not None), default=None),
            local_only=standing.local_only or extension.stays_here,
            spare_device=spare_device,
        )
        promise.check_mode(mode)
    except InvalidRequest as error:
        raise Refusal(str(error), "pd") from error
    return promise
