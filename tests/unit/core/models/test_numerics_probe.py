"""What the probe finds, what the id says, and when the environment may be set."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pd_core.errors import ConfigError
from pd_core.files.kept_results import keep, kept
from pd_core.host.torch_environment import prepare_environment
from pd_core.identity.fingerprint import numerics_id
from pd_core.identity.numerics import Numerics, unchecked
from pd_core.models import bit_checks, numerics_probe
from pd_core.models.activation import silu
from pd_core.models.linear import linear
from pd_core.models.numerics_probe import probe, whole_probe


class Machine:
    """Probes like a fresh process whose user has a cache folder of its own."""

    def __init__(self, cache: Path, found: Numerics) -> None:
        self.file = cache / "pd-device" / "numerics.json"
        self.found = found
        self.num_whole = 0

    def whole_probe(self) -> Numerics:
        """Count it, and find what the real one found."""
        self.num_whole += 1
        return self.found

    def probes_whole(self) -> bool:
        """Whether a new process that asks now has to run the whole probe."""
        before = self.num_whole
        assert probe.__wrapped__() == self.found
        return self.num_whole > before


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path, probe())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(numerics_probe, "whole_probe", machine.whole_probe)
    return machine


def test_the_probe_finds_a_way_here() -> None:
    numerics = probe()
    assert numerics.reproducible
    assert len(numerics.digest) == 64
    assert probe() is numerics


@pytest.mark.heavy
@pytest.mark.slow
def test_the_whole_probe_finds_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other test need run it: this one never takes it from a file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = probe.__wrapped__()
    assert found == whole_probe() == probe.__wrapped__() == probe()


def test_a_result_is_kept_for_the_next_process(machine: Machine) -> None:
    assert machine.probes_whole()
    assert not machine.probes_whole()


def test_all_it_depends_on_is_part_of_the_key(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.probes_whole()
    for target, name, other in (
        (numerics_probe, "cpu_description", lambda: "another processor"),
        (numerics_probe, "_sources", lambda: "other code"),
        (numerics_probe, "checked_threads", lambda: [1, 2, 64]),
        (torch, "__version__", "0.0"),
        (torch.__config__, "show", lambda: "another MKL"),
        (torch, "get_float32_matmul_precision", lambda: "medium"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, other)
            assert machine.probes_whole(), name
            assert not machine.probes_whole(), name
    for variable in ("MKL_CBWR", "OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "other")
            assert machine.probes_whole(), variable
    assert not machine.probes_whole()


@pytest.mark.parametrize("unknown", ["cpu_description", "_sources"])
def test_what_cannot_be_told_is_not_kept(
    unknown: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics_probe, unknown, lambda: None)
    assert machine.probes_whole()
    assert machine.probes_whole()


def test_the_code_that_is_checked_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = numerics_probe._sources()
    assert digest is not None
    read = Path.read_bytes
    for module in ("linear", "attention", "kv_cache", "bit_checks", "numerics_probe", "numerics"):

        def changed(file: Path, module: str = module) -> bytes:
            return read(file) + b"#" * (file.stem == module)

        monkeypatch.setattr(Path, "read_bytes", changed)
        assert numerics_probe._sources() != digest, module


def test_a_damaged_file_promises_nothing(machine: Machine) -> None:
    assert machine.probes_whole()
    whole = machine.file.read_bytes()
    for damaged in (
        b"",
        b"[]",
        b"\xff",
        whole[: len(whole) // 2],
        whole.replace(b'"min_rows": 4', b'"min_rows": 1').replace(b'"check": "', b'"check": "0'),
        whole.replace(b'"reproducible": true', b'"reproducible": false'),
    ):
        machine.file.write_bytes(damaged)
        assert machine.probes_whole(), damaged
        assert not machine.probes_whole(), "written anew"


@pytest.mark.slow
@pytest.mark.parametrize(
    "odd",
    [
        None,
        {},
        {"min_rows": 3},
        {"min_rows": "4"},
        {"key_steps": [64]},
        {"query_rows": 1},
        {"reproducible": False},
        {"digest": None},
        {"digest": "0" * 64},
        {"more": 1},
    ],
)
def test_a_whole_entry_that_says_something_odd_is_not_believed(
    odd: dict[str, object] | None, machine: Machine
) -> None:
    assert machine.probes_whole()
    key = numerics_probe._key()
    good = kept("numerics", key)
    keep("numerics", key, good | odd if odd else odd)
    assert machine.probes_whole()
    assert not machine.probes_whole()


def test_a_machine_that_makes_other_bits_is_probed_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert machine.probes_whole()
    monkeypatch.setattr(numerics_probe, "bits_digest", lambda _: "f" * 64)
    assert machine.probes_whole()
    assert "this machine makes other bits than before; it is probed again" in caplog.text


def test_a_folder_that_cannot_be_written_only_costs_time(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert machine.probes_whole()
    assert machine.probes_whole()


def test_what_promises_nothing_is_not_kept(machine: Machine) -> None:
    machine.found = Numerics(False, 1, 0, machine.found.isa, "")
    assert machine.probes_whole()
    assert machine.probes_whole()
    assert not machine.file.exists()


def test_a_kept_result_holds_no_more_than_it_says(machine: Machine) -> None:
    assert machine.probes_whole()
    (entry,) = json.loads(machine.file.read_text()).values()
    assert set(entry) == {"value", "check"}
    assert "min_rows" in entry["value"]


def test_the_id_does_not_depend_on_the_way() -> None:
    numerics = probe()
    assert numerics_id("float32", numerics=numerics) == numerics_id(
        "float32", numerics=replace(numerics, min_rows=16)
    )
    assert numerics_id("float32", numerics=numerics).endswith(numerics.digest[:16])
    assert bit_checks.bits_digest(replace(numerics, min_rows=16)) == numerics.digest


def test_unchecked_ids_equal_no_other() -> None:
    ids = {numerics_id("float32", numerics=unchecked("avx512")) for _ in range(3)}
    ids |= {numerics_id("float32") for _ in range(3)}
    assert len(ids) == 6
    assert all(i.endswith("/fast") for i in ids)


def test_the_probe_sees_that_plain_calls_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is independent of the rows, the result promises nothing."""

    def by_rows(x: torch.Tensor, weight: torch.Tensor, _bias: None, _n: Numerics) -> torch.Tensor:
        return torch.nn.functional.linear(x, weight) + len(x) * 1e-6

    monkeypatch.setattr(bit_checks, "linear", by_rows)
    assert not whole_probe().reproducible


@pytest.mark.slow
def test_the_probe_restores_the_thread_count() -> None:
    before = torch.get_num_threads()
    bit_checks.linear_is_equal(Numerics(True, 4, 0, "", ""), [1, 2])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 15, 17, 40])
def test_padding_and_tiles_keep_the_rows(rows: int) -> None:
    x = torch.randn(rows, 24)
    weight, bias = torch.randn(10, 24), torch.randn(10)
    want = x @ weight.T + bias
    for numerics in (
        unchecked(""),
        replace(unchecked(""), min_rows=16),
        replace(unchecked(""), tile_rows=16),
    ):
        got = linear(x, weight, bias, numerics)
        assert got.shape == want.shape
        torch.testing.assert_close(got, want)


def test_silu_is_silu() -> None:
    x = torch.cat([torch.linspace(-30, 30, 1001), torch.tensor([-1e4, 1e4])])
    torch.testing.assert_close(silu(x), torch.nn.functional.silu(x))


def test_the_environment_must_be_set_before_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKL_CBWR", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    with pytest.raises(ConfigError, match="torch was imported before"):
        prepare_environment()
    prepare_environment(fast=True)
    assert "MKL_CBWR" not in os.environ
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    prepare_environment()
    assert "MKL_CBWR" not in os.environ
    monkeypatch.setenv("MKL_CBWR", "AVX2,STRICT")
    prepare_environment()
    assert os.environ["MKL_CBWR"] == "AVX2,STRICT"


@pytest.mark.parametrize("chosen", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_threads_wait_asleep_where_nobody_chose(
    chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pd_core.host.torch_environment.num_cores", lambda: 64)
    prepare_environment(fast=True)
    assert "OMP_WAIT_POLICY" not in os.environ, "waking 64 costs more than spinning"
    monkeypatch.setattr("pd_core.host.torch_environment.num_cores", lambda: 4)
    monkeypatch.setenv(chosen, "ACTIVE")
    prepare_environment(fast=True)
    assert os.environ.get("OMP_WAIT_POLICY", "ACTIVE") == "ACTIVE"
    monkeypatch.delenv(chosen)
    prepare_environment(fast=True)
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_vocabulary_needs_no_torch() -> None:
    """A planner, a mock or a bench must not pay for importing torch."""
    names = "errors sampling_params generation sampling.rolling_hash sampling.splitmix"
    names += " identity.numerics identity.fingerprint text.tokenizer host.torch_environment"
    modules = ", ".join(f"pd_core.{name}" for name in names.split())
    code = (
        f"import sys, {modules}; "
        "pd_core.host.torch_environment.prepare_environment(); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == 0
