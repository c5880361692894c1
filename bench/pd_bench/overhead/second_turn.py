"""How soon the device takes over in a conversation's second turn, compared with its first.

The device keeps the KV cache of a conversation, so the second turn prefills only the user's new
words. Measured with a real cloud, a real engine slowed to a device profile, and a new conversation
in every round.
"""

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from rich.table import Table

from pd_bench.harness.cores import split_cores
from pd_bench.harness.server_process import ServerOptions, own_server
from pd_bench.overhead.settings import TurnsSettings
from pd_core.checkpoints.loading import load_model
from pd_core.errors import ConfigError
from pd_core.host.affinity import available_cores, pinned
from pd_core.process.loading_thread import in_loading_thread
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Origin, Outcome
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.engine.torch_engine import TorchLocalEngine

__all__ = ["GOAL", "Round", "measure_turns", "turns_table"]

GOAL = 0.2
"""The largest ratio of the second turn's time to handoff to the first's."""

_KEPT_BYTES = 256 << 20
_LOWEST_ID = 300  # many tokenizers have bytes and special tokens below


@dataclass(frozen=True, slots=True)
class Round:
    """One conversation; times in seconds from each turn's submit.

    Attributes:
        first_s, second_s: time of the device's first token in each turn.
        cached_tokens: tokens of the second prompt that the device had cached.
        cloud_tokens: shown tokens that the cloud made, in each turn.
    """

    first_s: float
    second_s: float
    cached_tokens: int
    cloud_tokens: tuple[int, int]

    @property
    def ratio(self) -> float:
        """The second turn's time over the first's."""
        return self.second_s / self.first_s


async def measure_turns(
    settings: TurnsSettings, tick: Callable[[str], None] = lambda _: None
) -> list[Round]:
    """Run `rounds` conversations of two turns.

    Args:
        settings: what to measure.
        tick: called with what is being done.

    Raises:
        ConfigError: the conversation does not fit the model.
        PdError: the server could not be started, or a request failed.
    """
    loaded = await in_loading_thread(lambda: load_model(settings.model, numerics="auto"))
    vocab, context = loaded.model.num_token_ids, loaded.model.config.max_context_tokens
    whole = settings.prompt_tokens + 2 * settings.answer_tokens + settings.words_tokens
    if whole > context:
        raise ConfigError(
            f"the conversation has {whole} tokens, and the model room for {context}; shorten it, "
            "or choose another --model"
        )
    cores = split_cores(available_cores())
    found = []
    with pinned(cores.client):
        async with own_server(ServerOptions(settings.model, cores=cores.server)) as target:
            engine = TorchLocalEngine(loaded, num_threads=1, kept_kv_bytes=_KEPT_BYTES)
            client = DeviceClient(
                cloud=GrpcCloudLink(target),
                engine=ThrottledEngine(engine, settings.profile),
                pace_s=settings.pace_s,
            )
            try:
                await client.start()
                for number in range(settings.rounds):
                    tick(f"conversation {number + 1} of {settings.rounds}")
                    chance = random.Random(number)
                    found.append(await _conversation(client, settings, chance, vocab))
            finally:
                await client.close()
    return found


async def _conversation(
    client: DeviceClient, settings: TurnsSettings, chance: random.Random, vocab: int
) -> Round:
    def words(count: int) -> list[int]:
        return [chance.randrange(min(_LOWEST_ID, vocab // 2), vocab) for _ in range(count)]

    prompt = words(settings.prompt_tokens)
    first = await _turn(client, settings, prompt)
    prompt += [*first.token_ids, *words(settings.words_tokens)]
    second = await _turn(client, settings, prompt)
    return Round(
        _device_from_s(first),
        _device_from_s(second),
        second.device_cached_tokens,
        (first.cloud_tokens, second.cloud_tokens),
    )


async def _turn(client: DeviceClient, settings: TurnsSettings, prompt: list[int]) -> Outcome:
    sampling = SamplingParams(temperature=0.8, seed=len(prompt), ignore_eos=True)
    request = Ask("turn", tuple(prompt), settings.answer_tokens, sampling)
    session = client.session(request)
    async for _ in session.run():
        pass
    return session.outcome


def _device_from_s(outcome: Outcome) -> float:
    """Return when the device's first token of the answer was committed."""
    for shown in outcome.shown:
        if shown.origin is Origin.DEVICE:
            return outcome.arrived_at_s[shown.position]
    raise ConfigError(
        "the device took no part in an answer; give it more tokens (--answer-tokens), or a "
        "quicker --device-profile"
    )


def turns_table(rounds: list[Round], settings: TurnsSettings) -> Table:
    """Return a table of the conversations, and the median ratio with its goal."""
    ratio = statistics.median(found.ratio for found in rounds)
    table = Table(
        title=f"device's first token, first and second turn ({settings.prompt_tokens} tokens, then "
        f"{settings.words_tokens} more; {settings.profile.name})",
        caption=f"median ratio {ratio:.3f}; goal: at most {GOAL:g}: "
        + ("met" if ratio <= GOAL else "MISSED"),
    )
    for column in ("first, s", "second, s", "ratio", "kept tokens", "cloud tokens"):
        table.add_column(column, justify="right")
    for found in rounds:
        first, second = found.cloud_tokens
        table.add_row(
            f"{found.first_s:.3f}",
            f"{found.second_s:.3f}",
            f"{found.ratio:.3f}",
            str(found.cached_tokens),
            f"{first}, {second}",
        )
    return table
