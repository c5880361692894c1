"""One prompt in three modes, live: which side made which token, and what it cost.

The prompt is the beginning of a documentation page that the shipped model was not trained on, which
it carries on; a model with a chat template answers a question about the page. The server is a real
process, the device a real engine in this one, throttled to the profile "slow" because both run on
the same machine.
"""

from collections.abc import Callable
from importlib import resources

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pd_bench.harness.cores import split_cores
from pd_bench.harness.server_process import ServerOptions, own_server
from pd_bench.replay.schemes import SCHEMES
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.host.affinity import available_cores, pinned
from pd_core.process.loading_thread import in_loading_thread
from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Origin, Outcome, Shown
from pd_device_client.device.prompt import conversation_token_ids, knows_roles
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.speeds.profiles import device_profile
from pd_device_client.session.session import Session

__all__ = ["comparison", "run_demo"]

_PACE_S = 0.1
_ANSWER_TOKENS = 96
_SEED = 8  # gives a text that reads well; the other sampling parameters are the model's own
_STYLES = {Origin.CLOUD: "bold cyan", Origin.DEVICE: "green"}
_PAGE = "tutorial-modules.rst.txt"
_PAGE_SOURCE = "the Python tutorial's page on modules"  # licence: assets/README.md
_QUESTION = "Explain in three sentences what a module is and how a program uses one."


async def run_demo(
    console: Console,
    model: str,
    *,
    answer_tokens: int = _ANSWER_TOKENS,
    pace_s: float = _PACE_S,
) -> list[Outcome]:
    """Run the prompt in the three modes, print the answers and the comparison.

    Args:
        console: where to print.
        model: as `load_model` takes it, for both sides.
        answer_tokens: token limit of each answer.
        pace_s: seconds between shown tokens.

    Raises:
        PdError: a side could not be started, or no side could answer.
    """
    cores = split_cores(available_cores())
    speed = device_profile("slow")
    with pinned(cores.client):
        loaded = await in_loading_thread(lambda: load_model(model, numerics="auto"))
        chats = knows_roles(loaded)
        text, prompt = _prompt(loaded, chats=chats)
        sampling = loaded.sampling_defaults.params(seed=_SEED)
        async with own_server(ServerOptions(model=model, cores=cores.server)) as target:
            engine = TorchLocalEngine(loaded, num_threads=len(cores.client) or None)
            client = DeviceClient(
                cloud=GrpcCloudLink(target),
                engine=ThrottledEngine(engine, speed),
                pace_s=pace_s,
                text=loaded.tokenizer.stream,
            )
            try:
                await client.start()
                console.print(
                    f"A prompt of {len(prompt)} tokens, and {answer_tokens} more at one per "
                    f"{pace_s:g} s."
                )
                _introduce(console, loaded, text, speed.source)
                outcomes = []
                for mode in SCHEMES:
                    console.print(f"\n[bold]{mode}[/bold]")
                    # A salt per mode: no mode finds the prompt cached by another.
                    ask = Ask(
                        f"demo-{mode}",
                        prompt,
                        answer_tokens,
                        sampling,
                        continues_prompt=not chats,
                        cache_salt=mode,
                        mode=Mode(mode),
                    )
                    outcomes.append(await _shown(console, client.session(ask)))
            finally:
                await client.close()
    console.print(comparison(outcomes))
    same = len({tuple(outcome.token_ids) for outcome in outcomes}) == 1
    console.print(f"same tokens in all three modes: {'yes' if same else 'NO'}")
    return outcomes


def _page() -> str:
    """Return the prompt's text without trailing space."""
    path = resources.files("pd_bench") / "assets" / _PAGE
    return path.read_text(encoding="utf-8").rstrip()


def _prompt(loaded: LoadedModel, *, chats: bool) -> tuple[str, tuple[int, ...]]:
    """Return the prompt's text as the user gives it, and its ids."""
    page = _page()
    if not chats:
        return page, tuple(loaded.tokenizer.encode_prompt(page))
    asked = f"{page}\n\n{_QUESTION}"
    return asked, conversation_token_ids(loaded, [{"role": "user", "content": asked}])


def _introduce(console: Console, loaded: LoadedModel, prompt: str, speed_source: str) -> None:
    console.print(
        f"Device: real engine, *throttled* to {speed_source}. Model: {loaded.name}"
        + (" (random weights: the words mean nothing)." if loaded.name == RANDOM_TINY else "."),
    )
    console.print(f"The prompt is the beginning of {_PAGE_SOURCE}; it ends with:")
    console.print(prompt.rpartition("\n\n")[2], style="dim", markup=False)
    tints = [(f"made by the {origin}", style) for origin, style in _STYLES.items()]
    console.print(Text.assemble(tints[0], ", ", tints[1]))


async def _shown(console: Console, session: Session) -> Outcome:
    """Stream one answer, tinted by origin."""
    async for shown in session.run():
        assert isinstance(shown, Shown), "the ask is not watched"
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
