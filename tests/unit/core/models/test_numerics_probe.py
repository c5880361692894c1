"""What the probe finds, what the id says, and when the environment may be set."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from pd_core.errors import ConfigError
from pd_core.host.torch_environment import prepare_environment
from pd_core.identity.fingerprint import numerics_id
from pd_core.identity.numerics import Numerics, unchecked
from pd_core.models import numerics_probe
from pd_core.models.activation import silu
from pd_core.models.linear import linear
from pd_core.models.numerics_probe import probe


def test_the_probe_finds_a_way_here() -> None:
    numerics = probe()
    assert numerics.reproducible
    assert len(numerics.digest) == 64
    assert probe() is numerics


def test_the_id_does_not_depend_on_the_way() -> None:
    numerics = probe()
    assert numerics_id("float32", numerics=numerics) == numerics_id(
        "float32", numerics=replace(numerics, min_rows=16)
    )
    assert numerics_id("float32", numerics=numerics).endswith(numerics.digest[:16])
    assert numerics_probe._digest(replace(numerics, min_rows=16)) == numerics.digest


def test_unchecked_ids_equal_no_other() -> None:
    ids = {numerics_id("float32", numerics=unchecked("avx512")) for _ in range(3)}
    ids |= {numerics_id("float32") for _ in range(3)}
    assert len(ids) == 6
    assert all(i.endswith("/fast") for i in ids)


def test_the_probe_sees_that_plain_calls_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is independent of the rows, the result promises nothing."""

    def by_rows(x: torch.Tensor, weight: torch.Tensor, _bias: None, _n: Numerics) -> torch.Tensor:
        return torch.nn.functional.linear(x, weight) + len(x) * 1e-6

    monkeypatch.setattr(numerics_probe, "linear", by_rows)
    assert not probe.__wrapped__().reproducible


def test_the_probe_restores_the_thread_count() -> None:
    before = torch.get_num_threads()
    numerics_probe._linear_is_equal(Numerics(True, 4, 0, "", ""), [1, 2])
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
