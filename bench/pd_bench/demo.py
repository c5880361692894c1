"""One prompt, three modes, told live: who made which token, and what it cost.

A real server process and a real device engine in this one; the device is throttled to the profile
"slow", because both sides of this demonstration run on the same machine.
"""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pd_bench.cores import available_cores, pinned, split_cores
from pd_bench.devices import grpc_link
from pd_bench.server_process import ServerOptions, own_server
from pd_bench.settings import SCHEMES, CloudAccess
from pd_core.models import LoadedModel, load_model
from pd_core.profiles import device_profile
from pd_core.sampling_params import SamplingParams
from pd_device_client.client import DeviceClient
from pd_device_client.local_engine import TorchLocalEngine
from pd_device_client.outcome import GenerationRequest, Origin, Outcome
from pd_device_client.throttled_engine import ThrottledEngine

__all__ = ["comparison", "run_demo"]

_PACE_S = 0.1
_PROMPT_TOKENS = 800
_ANSWER_TOKENS = 48
_STYLES = {Origin.CLOUD: "bold cyan", Origin.DEVICE: "green"}
_PROMPT = (
    "A reader asks a long question on a small device. Alone, the device would need seconds to "
    "read it; the cloud reads it at once, says the first words, and hands over as soon as the "
    "device has caught up. What the reader sees is one even answer. "
)


async def run_demo(console: Console, model: str) -> list[Outcome]:
    """Run the prompt in the three modes, print the answers and the comparison.

    Raises:
        PdError: a side could not be started, or no side could answer.
    """
    cores = split_cores(available_cores())
    speed = device_profile("slow")
    with pinned(cores.client):
        loaded = load_model(model)
        async with own_server(ServerOptions(model=model, cores=cores.server)) as target:
            engine = TorchLocalEngine(loaded, num_threads=len(cores.client) or None)
            client = DeviceClient(
                cloud=grpc_link(CloudAccess(target)),
                engine=ThrottledEngine(engine, speed),
                pace_s=_PACE_S,
            )
            try:
                await client.start()
                _introduce(console, loaded, speed.source)
                outcomes = [await _answer(console, client, loaded, mode) for mode in SCHEMES]
            finally:
                await client.close()
    console.print(comparison(outcomes))
    same = len({tuple(outcome.token_ids) for outcome in outcomes}) == 1
    console.print(f"same tokens in all three modes: {'yes' if same else 'NO'}")
    return outcomes


def _introduce(console: Console, loaded: LoadedModel, speed_source: str) -> None:
    console.print(
        f"A prompt of {_PROMPT_TOKENS} tokens, an answer of {_ANSWER_TOKENS} at one token per "
        f"{_PACE_S:g} s. Device: real engine, *throttled* to {speed_source}. Model: {loaded.name}"
        + (" (random weights: the words mean nothing)." if loaded.name == "random-tiny" else "."),
    )
    tints = [(f"made by the {origin}", style) for origin, style in _STYLES.items()]
    console.print(Text.assemble(tints[0], ", ", tints[1]))


async def _answer(
    console: Console, client: DeviceClient, loaded: LoadedModel, mode: str
) -> Outcome:
    """Stream one answer, tinted by origin."""
    ids = loaded.tokenizer.encode(_PROMPT)
    prompt = (ids * (_PROMPT_TOKENS // len(ids) + 1))[:_PROMPT_TOKENS]
    request = GenerationRequest(
        request_id=f"demo-{mode}",
        prompt_token_ids=tuple(prompt),
        max_tokens=_ANSWER_TOKENS,
        sampling=SamplingParams(temperature=0.8, seed=7, ignore_eos=True),
    )
    session = client.session(request, mode, text=loaded.tokenizer.stream())
    console.print(f"\n[bold]{mode}[/bold]")
    async for shown in session.run():
        console.print(shown.text, style=_STYLES[shown.origin], end="", markup=False, soft_wrap=True)
    console.print()
    return session.outcome


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


_ROWS: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
    ("TTFT, s", lambda o: _seconds(o.ttft_s)),
    ("TPOT, s", lambda o: _seconds(o.tpot_s)),
    ("largest gap, s", lambda o: _seconds(o.largest_gap_s)),
    ("handoff position", lambda o: "-" if o.handoff_position is None else str(o.handoff_position)),
    ("cloud tokens", lambda o: str(o.cloud_tokens)),
    ("device tokens", lambda o: str(o.device_tokens)),
)


def comparison(outcomes: list[Outcome]) -> Table:
    """Return the three modes side by side."""
    table = Table(title="device throttled to profile slow; cloud on the same machine")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.mode, justify="right")
    for name, cell in _ROWS:
        table.add_row(name, *(cell(outcome) for outcome in outcomes))
    return table
