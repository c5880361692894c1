"""Answers to schemas by two real sides, whole and with the cloud cut at a random position."""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib import resources
from statistics import median

from pd_bench.exactness.cut_link import CutLink
from pd_bench.exactness.held_back import HeldEngine
from pd_bench.exactness.mask_cost import MaskCost, measure_masks
from pd_bench.exactness.schema_settings import SchemaSettings
from pd_bench.exactness.schemas import read_schemas, valid
from pd_bench.harness.server_process import ServerOptions, own_server
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.constraint import Constraint, json_schema_constraint
from pd_core.errors import FingerprintMismatch
from pd_core.process.loading_thread import in_loading_thread
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.form_check import FormCheckedLink, compiled_within
from pd_device_client.client.handshake import shake_hands
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.planner import Plan
from pd_device_client.planning.speeds.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.planning.speeds.profiles import device_profile
from pd_device_client.session.session import Session
from pd_device_client.session.sides import CloudTimeouts, Sides

__all__ = ["FirstTokens", "SchemaAnswers", "SchemaFigures", "measure_schemas"]

_PACE_S = 0.0005  # as soon as a token is there
_API_WAIT_S = 0.005  # how long the device's API waits for a form before the answer begins
_PAGE = "tutorial-modules.rst.txt"


@dataclass(frozen=True, slots=True)
class SchemaAnswers:
    """How many answers there were, and how many were right.

    Attributes:
        answers: all.
        by_both: of them, those of which both sides made tokens.
        unfinished: those that reached the token limit, so that they are no JSON yet.
        valid: those that are of their schema, as another library judges.
        equal: those that are the whole answer of the cloud alone, token by token.
        tokens: of all answers.
    """

    answers: int
    by_both: int
    unfinished: int
    valid: int
    equal: int
    tokens: int


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """Milliseconds to the first token of the cloud alone, medians.

    Attributes:
        with_ms: with a schema that nobody has seen before; each has one.
        without_ms: without a form.
        more_ms: what a new schema adds.
    """

    with_ms: float
    without_ms: float
    more_ms: float


@dataclass(frozen=True, slots=True)
class SchemaFigures:
    """All that is measured."""

    answers: SchemaAnswers
    masks: MaskCost
    first_tokens: FirstTokens


async def measure_schemas(
    settings: SchemaSettings, tick: Callable[[str], None] = lambda _: None
) -> SchemaFigures:
    """Ask for answers to schemas, cut the cloud, and take the times.

    Raises:
        PdError: the server could not be started, or a request failed.
    """
    tick("starting a server")
    options = ServerOptions(settings.model, flags=("--numerics", settings.numerics))
    async with own_server(options) as target:
        loaded = await in_loading_thread(
            lambda: load_model(settings.model, numerics=settings.numerics)
        )
        engine = TorchLocalEngine(loaded)
        await in_loading_thread(engine.grammars.prepare)
        link = GrpcCloudLink(target)
        try:
            two = await _Two.of(loaded, link, engine, settings)
            answers, made = await two.answers(tick)
            tick("the first tokens")
            first_tokens = await two.first_tokens()
            tick("the masks")
            masks = await in_loading_thread(lambda: measure_masks(loaded, engine.grammars, made))
        finally:
            await link.close()
            await engine.close()
    return SchemaFigures(answers, masks, first_tokens)


@dataclass(frozen=True, slots=True)
class _Two:
    """A cloud that can be cut, and a device that waits until it is."""

    settings: SchemaSettings
    loaded: LoadedModel
    engine: TorchLocalEngine
    link: CutLink
    sides: Sides
    prompt: tuple[int, ...]

    @classmethod
    async def of(
        cls,
        loaded: LoadedModel,
        link: GrpcCloudLink,
        engine: TorchLocalEngine,
        settings: SchemaSettings,
    ) -> "_Two":
        info = await link.info()
        hands = shake_hands(engine.card, info.model)
        if hands.mismatch or hands.exactness != "identical":
            raise FingerprintMismatch(hands.mismatch or "the two sides' numerics differ")
        cut = CutLink(link)
        sides = Sides(
            link=cut,
            engine=HeldEngine(engine, cut.cut.wait),
            cloud_estimate=CloudEstimate(),
            device_estimate=DeviceEstimate(device_profile("laptop")),
            fingerprints=loaded.fingerprints,
            eos_token_ids=loaded.eos_token_ids,
            exactness=hands.exactness,
            timeouts=CloudTimeouts(finish_s=0.05),
        )
        page = resources.files("pd_bench") / "assets" / _PAGE
        ids = loaded.tokenizer.encode_prompt(page.read_text(encoding="utf-8"))
        return cls(settings, loaded, engine, cut, sides, tuple(ids[: settings.prompt_tokens]))

    async def answers(
        self, tick: Callable[[str], None]
    ) -> tuple[SchemaAnswers, list[tuple[Constraint, list[int]]]]:
        """Ask for every answer twice: whole from the cloud, and with the cloud cut."""
        chance, schemas = random.Random(self.settings.seed), list(read_schemas().items())
        made = list[tuple[Constraint, list[int]]]()
        by_both = unfinished = right = equal = 0
        for number in range(self.settings.answers):
            name, schema = schemas[number % len(schemas)]
            tick(f"answer {number + 1} of {self.settings.answers}: {name}")
            constraint = json_schema_constraint(schema)
            whole = await self._answer(number, constraint, None)
            position = chance.randrange(len(whole.token_ids))
            outcome = await self._answer(number, constraint, position)
            made.append((constraint, outcome.token_ids))
            by_both += outcome.handoff_position is not None
            ended = outcome.token_ids[-1] in self.loaded.eos_token_ids
            unfinished += not ended
            right += ended and valid(schema, self.loaded.tokenizer.decode(outcome.token_ids))
            equal += outcome.token_ids == whole.token_ids
        tokens = sum(len(token_ids) for _, token_ids in made)
        count = SchemaAnswers(len(made), by_both, unfinished, right, equal, tokens)
        return count, made

    async def first_tokens(self) -> FirstTokens:
        """Take times with a new schema and without, one after the other."""
        schemas, times = list(read_schemas().values()), list[tuple[float, float]]()
        for number in range(self.settings.new_forms):
            schema = {**schemas[number % len(schemas)], "title": f"schema {number}"}
            formed = await self._first_token_s(json_schema_constraint(schema))
            times.append((formed, await self._first_token_s(None)))
        with_ms, without_ms = (median(column) * 1e3 for column in zip(*times, strict=True))
        more_ms = median(formed - free for formed, free in times) * 1e3
        return FirstTokens(with_ms, without_ms, more_ms)

    async def _first_token_s(self, constraint: Constraint | None) -> float:
        """Return when the first token is shown, from the moment that the request is read."""
        began_s = asyncio.get_running_loop().time()
        if constraint is not None:
            await compiled_within(self.engine.grammars.matcher(constraint), _API_WAIT_S)
        outcome = await self._answer(0, constraint, None, token_limit=1, asked_s=began_s)
        return outcome.shown[0].at_s

    async def _answer(
        self,
        number: int,
        constraint: Constraint | None,
        cut_after: int | None,
        *,
        token_limit: int | None = None,
        asked_s: float | None = None,
    ) -> Outcome:
        settings, sides = self.settings, self.sides
        limit = token_limit or settings.token_limit
        sampling = SamplingParams(
            temperature=settings.temperature,
            seed=settings.seed * 1_000_003 + number,
            constraint=constraint,
        )
        self.link.cut_after(cut_after)
        if constraint is not None:
            checked = FormCheckedLink(self.link, self.engine.grammars, constraint)
            sides = replace(sides, link=checked)
        mode = Mode.PD_DEVICE
        if cut_after is None:
            sides, mode = replace(sides, engine=None), Mode.CLOUD_ONLY
        ask = Ask(f"schema-{number}", self.prompt, limit, sampling, asked_s=asked_s)
        plan = Plan(mode, limit, _PACE_S, adapts=False)
        session = Session(ask, plan, sides, expected_tokens=limit)
        async with aclosing(session.run()) as answer:
            async for _ in answer:
                pass
        return session.outcome
