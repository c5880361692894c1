"""The rules that keep a comparison honest, each by what a replay does (DESIGN 8).

Those that other files hold already are listed in docs/guides/replay.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.harness.server_process import ServerOptions
from pd_bench.replay.cloud_meter import CloudMeter
from pd_bench.replay.dispatch import Client, Dispatcher
from pd_bench.replay.progress import Progress
from pd_bench.replay.replay import Replay
from pd_bench.replay.scheme_client import scheme_client
from pd_bench.replay.schemes import Scheme, parse_scheme
from pd_bench.replay.settings import ReplaySettings
from pd_bench.replay.workload import Work
from pd_bench.results.result import RequestRecord, ResultDocument
from pd_core.errors import CloudUnavailable
from pd_core.generation import Fingerprints, Limits, Load, ModelCard, ServerInfo, Start
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.egress import link_to
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.ports import CloudLink, CloudStream
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.result_documents import record
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud

PACE_S = 0.1
CAP = 200
SLOW = SpeedProfile("slow", "a test", 1 / 400, 0.05)


def run(
    name: str, lengths: Sequence[int], script: Script | None = None
) -> tuple[list[RequestRecord], ScriptedCloud]:
    """Carry rows of these lengths one after the other, each by a device that knows nothing."""
    cloud = ScriptedCloud(script or Script())

    def client_of(_: Work) -> Client:
        return scheme_client(
            parse_scheme(name),
            link=lambda: cloud,
            engine=lambda: EmulatedDeviceEngine(SLOW, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS]),
            pace_s=PACE_S,
            device_profile=SLOW,
        )

    def request_of(work: Work) -> Ask:
        sampling = SamplingParams(forced_length=work.output_tokens)
        return Ask(str(work.id), work.prompt_token_ids, CAP, sampling)

    dispatcher = Dispatcher(name, 0, request_of, timeout_s=1e3)
    prompt = tuple(i % 40 for i in range(300))
    works = [Work(i, i + 2, 100.0 * i, prompt, length) for i, length in enumerate(lengths)]
    run_virtual(dispatcher.run_open_loop(works, client_of))
    return sorted(dispatcher.records, key=lambda r: r.id), cloud


def test_no_plan_and_no_admission_depends_on_a_row_s_own_length() -> None:
    records, cloud = run("pd-device", [20, 60, 150])
    assert [r.error for r in records] == [None] * 3
    assert len({r.planned_tokens for r in records}) == 1
    assert [r.ttft_s for r in records] == pytest.approx([0.3] * 3)
    # What the cloud is told before it makes anything is the same too, but for its sampler's part.
    starts = [(s.token_limit, s.prompt_token_ids, s.useful_for_s) for s in cloud.starts]
    assert len(set(starts)) == 1


def test_a_cloud_only_request_asks_for_the_common_limit() -> None:
    _, cloud = run("cloud-only", [20, 60])
    assert [s.token_limit for s in cloud.starts] == [CAP, CAP]


@pytest.mark.parametrize("name", ["device-only", "cloud-only", "pd-device", "pd-device-k14"])
def test_every_scheme_has_the_same_controller_and_pace(name: str) -> None:
    """Where both sides are faster than the pace, gaps are the pace's, whoever makes the tokens."""
    (found,), _ = run(name, [60], Script(step_s=0.01))
    assert found.error is None
    # A seam may be longer (a fixed k of 14 has one); none may be shorter.
    assert min(found.gaps_s) == pytest.approx(PACE_S)


def test_the_race_alone_has_no_pace_and_says_so() -> None:
    (found,), _ = run("race-only", [60], Script(step_s=0.01))
    assert max(found.gaps_s) == pytest.approx(0.01)
    assert any("without a pace" in label for label in parse_scheme("race-only").labels)


# The order of a whole replay: fresh servers, salts, warm-ups, rotation


class FakeLink:
    """The card of a server whose totals grow by 10 tokens a pass, which a fresh one forgets."""

    def __init__(self, target: str, on_close: Callable[[], None]) -> None:
        self._target = target
        self._on_close = on_close

    async def info(self) -> ServerInfo:
        load = Load(tokens_generated=SERVERS[self._target])
        model = ModelCard(
            self._target, "fake", Fingerprints(), VOCAB_SIZE, (EOS,), 4096, "rolling-hash"
        )
        return ServerInfo("0", model, Limits(512, 4, 4), load)

    async def open(self, start: Start) -> CloudStream:
        raise AssertionError("the replay itself opens no stream")

    async def close(self) -> None:
        self._on_close()


SERVERS: dict[str, int] = {}


class FakeDevices:
    """Answers everything at once, and notes in which order it was asked."""

    arrivals = "trace"
    labels = ()
    kv_bytes_per_token = 0
    max_context_tokens = None
    text_token_ids = ()

    def __init__(self) -> None:
        self.passes: list[tuple[str, str, list[int], str]] = []

    def link_to(self, cloud: CloudAddress) -> CloudLink:
        """The usual link."""
        return link_to(cloud)

    def check(self, info: ServerInfo) -> None:
        """Every server will do."""

    async def run(
        self,
        scheme: Scheme,
        cloud: CloudAddress,
        info: ServerInfo,
        works: Sequence[Work],
        dispatcher: Dispatcher,
    ) -> None:
        salt = dispatcher._request_of(works[0]).cache_salt
        self.passes.append((scheme.name, cloud.target, [w.id for w in works], salt))
        SERVERS[cloud.target] += 10
        dispatcher.records += [record(work.id, scheme.name) for work in works]


@pytest.fixture
def replayed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[FakeDevices, list[ServerOptions], list[str]]:
    """Two passes of three schemes over two rows: devices, servers started, servers ended."""
    started: list[ServerOptions] = []
    ended: list[str] = []

    @asynccontextmanager
    async def own_server(options: ServerOptions) -> AsyncIterator[str]:
        started.append(options)
        target = f"server-{len(started)}"
        SERVERS[target] = 0
        yield target
        ended.append(target)

    devices = FakeDevices()
    monkeypatch.setattr("pd_bench.replay.replay.own_server", own_server)
    monkeypatch.setattr(
        "pd_device_client.cloud.grpc_link.GrpcCloudLink.to",
        lambda c: FakeLink(c.target, lambda: None),
    )
    monkeypatch.setattr(Replay, "_devices", lambda _: devices)
    trace = tmp_path / "t.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.0,30,3\n2023-11-16 18:17:04.0,30,3\n"
    )
    settings = ReplaySettings(trace=trace, device_profile="slow", repeat=2, max_output_tokens=64)

    async def main() -> None:
        with Progress(Console(quiet=True), 0.1) as progress:
            document = await Replay(settings, progress).run()
        totals = [s.cloud_tokens_generated for s in document.schemes.values()]
        assert totals == [20, 20, 20]  # two passes of 10; warm-ups are not measured
        assert all(s.requests == 4 for s in document.schemes.values())
        assert all(r.id >= 0 for r in document.requests)

    asyncio.run(main())
    return devices, started, ended


def test_every_pass_of_a_scheme_has_a_fresh_server_a_salt_and_a_warm_up(
    replayed: tuple[FakeDevices, list[ServerOptions], list[str]],
) -> None:
    devices, started, ended = replayed
    assert len(started) == len(ended) == 6
    assert len({(s.model, s.sampler, s.max_num_seqs, s.cores) for s in started}) == 1
    warm_ups, passes = devices.passes[::2], devices.passes[1::2]
    assert [rows for _, _, rows, _ in warm_ups] == [[-1]] * 6
    assert [rows for _, _, rows, _ in passes] == [[0, 1]] * 6
    assert len({target for _, target, _, _ in passes}) == 6
    assert len({salt for *_, salt in passes}) == 6
    for warm_up, measured in zip(warm_ups, passes, strict=True):
        assert (warm_up[0], warm_up[1]) == (measured[0], measured[1])


def test_the_schemes_order_rotates_over_repeats(
    replayed: tuple[FakeDevices, list[ServerOptions], list[str]],
) -> None:
    names = [name for name, _, rows, _ in replayed[0].passes if rows != [-1]]
    assert names == [
        *("device-only", "cloud-only", "pd-device"),
        *("cloud-only", "pd-device", "device-only"),
    ]


@pytest.mark.parametrize(
    ("cloud", "shared"),
    [
        (None, True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("cloud.example:443", False),
    ],
)
def test_a_server_and_a_client_on_one_core_are_not_to_be_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cloud: str | None, shared: bool
) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.0,30,3\n")
    SERVERS["one"] = SERVERS[cloud or "one"] = 0

    @asynccontextmanager
    async def own_server(options: ServerOptions) -> AsyncIterator[str]:
        yield "one"

    monkeypatch.setattr("pd_bench.replay.replay.own_server", own_server)
    monkeypatch.setattr(
        "pd_device_client.cloud.grpc_link.GrpcCloudLink.to",
        lambda c: FakeLink(c.target, lambda: None),
    )
    monkeypatch.setattr(Replay, "_devices", lambda _: FakeDevices())
    settings = ReplaySettings(
        trace=trace,
        schemes=("cloud-only",),
        device_profile="slow",
        max_output_tokens=64,
        cloud=None if cloud is None else CloudAddress(cloud),
    )

    async def main() -> ResultDocument:
        with Progress(Console(quiet=True), 0.1) as progress:
            return await Replay(settings, progress).run()

    for cores, valid in ((1, not shared), (2, True)):
        monkeypatch.setattr("pd_bench.replay.replay.num_processors", lambda cores=cores: cores)
        document = asyncio.run(main())
        told = any("share one core" in why for why in document.invalid_because)
        assert (document.valid, told) == (valid, not valid)


# A cloud that dies on the way


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], ResultDocument]:
    """Replays two schemes against one given server, which is gone after so many looks at it."""
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.0,30,3\n")
    settings = ReplaySettings(
        trace=trace,
        schemes=("cloud-only", "pd-device"),
        device_profile="slow",
        max_output_tokens=64,
        cloud=CloudAddress("one"),
    )
    monkeypatch.setattr(Replay, "_devices", lambda _: FakeDevices())
    monkeypatch.setattr(CloudMeter, "_watch_load", no_watch)  # which looks at it too

    def replay(num_looks: int) -> ResultDocument:
        looks = iter(range(num_looks))
        SERVERS["one"] = 0

        class DyingLink(FakeLink):
            async def info(self) -> ServerInfo:
                if next(looks, None) is None:
                    raise CloudUnavailable("gone")
                return await super().info()

        monkeypatch.setattr(
            "pd_device_client.cloud.grpc_link.GrpcCloudLink.to",
            lambda c: DyingLink("one", lambda: None),
        )

        async def main() -> ResultDocument:
            with Progress(Console(quiet=True), 0.1) as progress:
                run = Replay(settings, progress)
                document = await run.run()
            assert (run.failure is not None) == document.partial
            return document

        return asyncio.run(main())

    return replay


async def no_watch(_: CloudMeter) -> None:
    """Look at no load."""


def test_a_cloud_that_dies_between_two_schemes_takes_nothing_from_the_first(
    dying: Callable[[int], ResultDocument],
) -> None:
    document = dying(3)  # its card, its totals before and after
    assert document.partial
    assert not document.valid
    assert document.invalid_because[0].startswith("ended early: gone; what was to come")
    assert list(document.schemes) == ["cloud-only"]
    assert document.schemes["cloud-only"].cloud_tokens_generated == 10
    assert len(document.requests) == 1


def test_costs_of_a_cloud_that_died_are_not_known_rather_than_nothing(
    dying: Callable[[int], ResultDocument],
) -> None:
    document = dying(2)
    result = document.schemes["cloud-only"]
    assert (result.cloud_busy_s, result.cloud_kv_byte_s, result.kv_bytes_peak) == (None,) * 3
    # What the devices were told is left: never less than was shown.
    assert result.cloud_tokens_generated == document.requests[0].cloud_tokens_generated
    assert any("totals are missing: gone" in problem for problem in document.invalid_because)


def test_a_cloud_that_is_not_there_at_first_is_an_error(
    dying: Callable[[int], ResultDocument],
) -> None:
    with pytest.raises(CloudUnavailable, match="gone"):
        dying(0)
