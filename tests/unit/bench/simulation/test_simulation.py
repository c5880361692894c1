"""A simulation: deterministic, exact, honest by the rules of replay."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pd_bench.commands.simulate import interruptible
from pd_bench.results.result import ResultDocument
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES, CloudProfile
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.simulation import Simulation
from pd_core.errors import ConfigError, TraceError
from pd_device_client.planning.speeds.profiles import device_profile

ALL = ("device-only", "cloud-only", "pd-device", "pd-device-k5", "race-only")
CLOUD = CLOUD_PROFILES["gpu-8b"]
# Of every token's instant, in microseconds: the sum, the first, the last.
GOLDEN = {
    "device-only": (2863395355, 66029, 6523792),
    "cloud-only": (2415309185, 34659, 5769393),
    "pd-device": (2415287793, 35042, 5773792),
    "pd-device-k5": (2625752285, 35403, 6273792),
    "race-only": (381285028, 34659, 855182),
}


def _trace(folder: Path, rows: int = 12, output: Callable[[int], int] = lambda i: 9 + i) -> Path:
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += [f"2023-11-16 18:00:{i:02}.0000000,{100 + 97 * i},{output(i)}" for i in range(rows)]
    path = folder / "trace.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def _simulate(
    trace: Path,
    schemes: tuple[str, ...] = ALL,
    *,
    cloud: CloudProfile = CLOUD,
    device: str = "laptop",
    pace_s: float = 0.05,
    seed: int = 0,
    keep_requests: int = 256,
    limit: int | None = None,
) -> ResultDocument:
    settings = SimulationSettings(
        trace,
        device=device_profile(device),
        cloud=cloud,
        link_profile="wifi",
        schemes=schemes,
        pace_s=pace_s,
        seed=seed,
        keep_requests=keep_requests,
        limit=limit,
    )
    return Simulation(settings, lambda scheme, arrival_s: None).run()


def _json(document: ResultDocument) -> str:
    return document.model_dump_json(exclude={"versions", "hardware"})


@pytest.mark.slow
def test_the_same_inputs_give_the_same_document(tmp_path: Path) -> None:
    trace = _trace(tmp_path)
    first = _json(_simulate(trace))
    assert _json(_simulate(trace)) == first
    assert _json(_simulate(trace, seed=1)) != first


def test_every_scheme_gives_every_answer_whole_and_equal(tmp_path: Path) -> None:
    document = _simulate(_trace(tmp_path))
    assert document.fidelity == "simulated"
    assert document.valid
    assert document.exactness == "identical"
    assert (document.equal_rows.equal, document.equal_rows.rows) == (12, 12)
    for name in ALL:
        result = document.schemes[name]
        assert (result.requests, result.failed, result.disagreed) == (12, 0, 0), name
        assert result.cloud_tokens + result.device_tokens == sum(9 + i for i in range(12))
    assert document.schemes["device-only"].cloud_tokens_generated == 0
    assert document.schemes["cloud-only"].device_tokens == 0
    pd, cloud_only = document.schemes["pd-device"], document.schemes["cloud-only"]
    assert 0 < pd.cloud_tokens < cloud_only.cloud_tokens
    assert pd.cloud_busy_s is not None
    assert cloud_only.cloud_busy_s is not None
    assert pd.cloud_busy_s < cloud_only.cloud_busy_s
    assert document.cloud_load["pd-device"]
    assert document.timelines


@pytest.mark.slow
def test_a_device_that_reads_half_of_a_long_prompt_needs_fewer_cloud_tokens(tmp_path: Path) -> None:
    schemes = ("pd-device", "pd-device-r0.5", "pd-device-r0.25")
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += [f"2023-11-16 18:00:{5 * i:02}.0000000,{2000 + 50 * i},150" for i in range(8)]
    trace = tmp_path / "long.csv"
    trace.write_text("\n".join(lines) + "\n")
    document = _simulate(trace, schemes)
    exact, half, quarter = (document.schemes[name] for name in schemes)
    assert (exact.failed, half.failed, quarter.failed) == (0, 0, 0)
    assert quarter.cloud_tokens < half.cloud_tokens < exact.cloud_tokens
    assert document.exactness == "consistent"
    # An emulated device takes its tokens from the whole prompt, so none may be lost or doubled.
    assert (half.disagreed, document.equal_rows.equal) == (0, 8)
    assert _simulate(trace, ("pd-device",)).exactness == "identical"
    foreseen = [(r.id, r.scheme, r.handoff_position) for r in document.requests]
    assert len(foreseen) == 24


def test_a_scheme_does_not_depend_on_those_that_ran_before_it(tmp_path: Path) -> None:
    trace = _trace(tmp_path)
    alone = _simulate(trace, ("pd-device",))
    after = _simulate(trace, ("cloud-only", "race-only", "pd-device"))
    assert alone.schemes["pd-device"] == after.schemes["pd-device"]


@pytest.mark.slow
def test_a_rows_own_length_is_not_known_before_its_end(tmp_path: Path) -> None:
    """Two traces that differ in their answers' lengths alone begin alike in every scheme."""
    short = _simulate(_trace(tmp_path, output=lambda _: 30))
    long = _simulate(_trace(tmp_path, output=lambda _: 60))
    for a, b in zip(short.requests, long.requests, strict=True):
        assert a.planned_tokens == b.planned_tokens
    # Until the cloud's batches differ, to the last instant; the first request has no other.
    for brief, full in zip(short.timelines, long.timelines, strict=True):
        if brief.id == 0:
            assert full.shown_at_s[:29] == pytest.approx(brief.shown_at_s[:29], abs=1e-9)


def test_tokens_made_after_a_stop_count(tmp_path: Path) -> None:
    """A fast cloud far away makes more tokens before it hears of the claim."""
    document = _simulate(_trace(tmp_path, output=lambda _: 200), ("pd-device", "race-only"))
    for name in ("pd-device", "race-only"):
        result = document.schemes[name]
        assert result.cloud_tokens_generated >= result.cloud_tokens
    generated = sum(r.cloud_tokens_generated for r in document.requests)
    by_the_cloud = sum(s.cloud_tokens_generated for s in document.schemes.values())
    assert by_the_cloud >= generated > 0


def test_refused_requests_are_counted_and_break_their_promise(tmp_path: Path) -> None:
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += [f"2023-11-16 18:00:00.{i:07},500,200" for i in range(12)]
    trace = tmp_path / "burst.csv"
    trace.write_text("\n".join(lines) + "\n")
    small = CLOUD.model_copy(
        update={"max_num_seqs": 1, "max_num_waiting": 0, "max_num_batched_tokens": 256}
    )
    document = _simulate(trace, ("cloud-only", "pd-device"), cloud=small)
    refused = document.schemes["cloud-only"]
    assert refused.requests == 12
    assert 0 < refused.failed <= refused.broken_promises
    assert any("QueueFull" in (r.error or "") for r in document.requests)
    # Who has a device of its own is answered whatever the cloud says.
    assert document.schemes["pd-device"].failed == 0
    assert document.equal_rows.equal == 12 - refused.failed
    assert document.valid


def test_only_so_many_requests_are_kept_and_the_same_ones_in_every_scheme(tmp_path: Path) -> None:
    trace = _trace(tmp_path)
    document = _simulate(trace, ("cloud-only", "pd-device"), keep_requests=4)
    kept = {name: [r.id for r in document.requests if r.scheme == name]
            for name in document.schemes}  # fmt: skip
    assert len(kept["cloud-only"]) == 4
    assert kept["cloud-only"] == kept["pd-device"]
    whole = _simulate(trace, ("cloud-only", "pd-device"))
    assert document.schemes == whole.schemes


def test_rows_are_cut_and_counted(tmp_path: Path) -> None:
    narrow = CLOUD.model_copy(update={"max_context_tokens": 1024 + 400})
    document = _simulate(_trace(tmp_path), ("device-only",), cloud=narrow)
    assert document.cut_rows.rows == 12
    assert document.cut_rows.prompt == sum(100 + 97 * i > 400 for i in range(12))
    assert _simulate(_trace(tmp_path), ("device-only",), limit=5).cut_rows.rows == 5


def test_a_broken_row_names_its_line(tmp_path: Path) -> None:
    trace = _trace(tmp_path)
    trace.write_text(trace.read_text() + "nonsense,1,1\n")
    with pytest.raises(TraceError, match="line 14"):
        _simulate(trace, ("device-only",))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pace_s": 0.0}, "--pace"),
        ({"schemes": ("cloud",)}, "unknown scheme"),
        ({"keep_requests": -1}, "--keep-requests"),
    ],
)
def test_settings_are_refused_with_their_name(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        _simulate(_trace(tmp_path), **change)  # type: ignore[arg-type]


def test_an_interrupted_simulation_keeps_what_had_ended_and_says_so(tmp_path: Path) -> None:
    ended: list[str] = []

    def progress(scheme: str, arrival_s: float) -> None:
        ended.append(scheme)
        if len(ended) == 15:
            raise KeyboardInterrupt

    settings = SimulationSettings(
        _trace(tmp_path),
        device=device_profile("laptop"),
        cloud=CLOUD,
        link_profile="wifi",
        schemes=("device-only", "pd-device"),
    )
    document = Simulation(settings, progress).run()
    assert document.partial
    assert not document.valid
    assert "interrupted" in document.invalid_because[0]
    assert document.schemes["device-only"].requests == 12
    assert document.schemes["pd-device"].requests == 3
    assert document.schemes["pd-device"].cloud_tokens_generated > 0

    def at_once(scheme: str, arrival_s: float) -> None:
        raise KeyboardInterrupt

    alone = Simulation(settings, at_once).run()
    assert alone.schemes["device-only"].requests == 1


@pytest.mark.parametrize("scheme", GOLDEN)
def test_every_token_is_shown_when_it_always_was(tmp_path: Path, scheme: str) -> None:
    """So that a faster simulation is the same simulation."""
    trace = _trace(tmp_path, output=lambda i: 60 + 5 * i)
    document = _simulate(trace, (scheme,), device="edge-box", seed=7)
    shown = [round(at_s * 1e6) for record in document.requests for at_s in record.shown_at_s]
    assert len(shown) == sum(60 + 5 * i for i in range(12))
    assert (sum(shown), shown[0], shown[-1]) == GOLDEN[scheme]


def test_broken_rows_are_left_out_if_asked_and_counted(tmp_path: Path) -> None:
    trace = _trace(tmp_path)
    with trace.open("a") as file:
        file.write("2023-11-16 18:00:20.0000000,-1,5\n2023-11-16 18:00:21.0000000,50,5\n")
    settings = SimulationSettings(
        trace,
        device=device_profile("laptop"),
        cloud=CLOUD,
        schemes=("cloud-only",),
        skip_broken=True,
    )
    document = Simulation(settings, lambda scheme, arrival_s: None).run()
    assert document.skipped_rows == 1
    assert document.schemes["cloud-only"].requests == document.cut_rows.rows == 13
    assert any("1 broken rows" in label and "line 14" in label for label in document.labels)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_and_twice_keeps_what_had_ended(
    tmp_path: Path, number: signal.Signals
) -> None:
    trace = _trace(tmp_path, output=lambda _: 200)
    for scheme in ("cloud-only", "pd-device"):
        settings = SimulationSettings(
            trace, device=device_profile("laptop"), cloud=CLOUD, schemes=(scheme,)
        )

        def ended(_scheme: str, arrival_s: float) -> None:
            if arrival_s >= 3.0:  # inside a call of some task
                signal.raise_signal(number)
                signal.raise_signal(number)

        with interruptible():
            document = Simulation(settings, ended).run()
        assert document.partial
        assert 4 <= document.schemes[scheme].requests < 12
