"""torch alone gives the bits of integer numerics on any device, with any product of int8."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pd_core.checkpoints.loading import load_model
from pd_core.errors import ModelError
from pd_core.integer import device_check, exact_products, reference, torch_passes
from pd_core.integer.device_check import check_bits
from pd_core.integer.exact_products import exact_product, multiplies_int8
from pd_core.integer.integer_lm import IntegerLM
from pd_core.models import Segment
from tests import integer_models
from tests.integer_models import SHAPES, by_reference, way, weights_of

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    ),
]
TOKENS = torch.arange(30) * 7 % 100


def hidden_and_logits(model: IntegerLM) -> tuple[Tensor, Tensor]:
    """Return the rows of TOKENS, fed in chunks."""
    cache = model.make_cache(1)
    chunks = [(0, 20), (20, 21), (21, 30)]
    rows = torch.cat([model.forward(TOKENS[i:j], [Segment(cache, i, j - i)]) for i, j in chunks])
    return rows[:, : model.config.hidden_size].cpu(), model.logits(rows)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("int8", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_device_gives_the_reference_s_bits(
    device: str, int8: bool, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both products, whichever this machine would take: int8 may not be exact here."""
    if int8 and not multiplies_int8(device):
        pytest.skip("this processor's products of int8 are not exact")
    monkeypatch.setattr(exact_products, "multiplies_int8", lambda _: int8)
    config = SHAPES[shape]
    expected_hidden, expected = by_reference(config, TOKENS.tolist())
    with way(monkeypatch, "off"):
        model = IntegerLM(config, weights_of(config).__getitem__, device=torch.device(device))
        hidden, logits = hidden_and_logits(model)
    assert torch.equal(hidden, expected_hidden)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("int8", [True, False])
@pytest.mark.parametrize("cols", [8, 2048, 2056, 270_000])
def test_the_largest_sums_are_exact(
    device: str, int8: bool, cols: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if int8 and not multiplies_int8(device):
        pytest.skip("this processor's products of int8 are not exact")
    monkeypatch.setattr(exact_products, "multiplies_int8", lambda _: int8)
    generator = torch.Generator().manual_seed(cols)
    x = torch.randint(-2047, 2048, (3, cols), generator=generator, dtype=torch.int32)
    x[0], x[1] = 2047, -2047
    for weight in (
        torch.randint(-127, 128, (8, cols), generator=generator, dtype=torch.int8),
        torch.randint(-504, 442, (8, cols), generator=generator, dtype=torch.int16),
    ):
        weight[0], weight[1] = int(weight.max()), int(weight.min())
        found = exact_product(x.to(device), weight.to(device))
        assert torch.equal(found.cpu(), x.long() @ weight.long().T)


@pytest.mark.parametrize("device", DEVICES)
def test_the_check_of_a_device_passes(device: str) -> None:
    device_check.check_bits.cache_clear()
    check_bits(torch.device(device))


def test_the_check_s_bits_are_the_reference_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        integer_models,
        "weights_of",
        lambda config, seed: {k: device_check._numbers(v) for k, v in weights_of(config).items()},
    )
    _, expected = by_reference(device_check._CONFIG, list(range(40)))
    assert torch.equal(device_check._logits(CPU), expected)
    gated, normal, turned = (made.numpy() for made in device_check._single_operations(CPU))
    a, b = (device_check._numbers(torch.empty(shape)).numpy() for shape in ((256, 96), (96, 256)))
    b = b.T * np.float32(3)
    np.testing.assert_array_equal(gated, reference.gated(np.float32(9) * a, b))
    np.testing.assert_array_equal(normal, reference.normalise(a, b[0], 1e-6))
    cos, sin = b[:, None, :48], b[:, None, 48:]
    np.testing.assert_array_equal(turned, reference.rotate(a[:, None], cos, sin))


def _fused(gate: Tensor, up: Tensor) -> Tensor:
    return torch.nn.functional.silu(gate) * up


def _fails(*_: object) -> Tensor:
    raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")


@pytest.mark.parametrize(("broken", "said"), [(_fused, "does not compute"), (_fails, "CUBLAS")])
def test_a_device_that_rounds_in_its_own_way_is_refused(
    broken: Callable[..., Tensor], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_passes, "gated", broken)
    device_check.check_bits.cache_clear()
    with way(monkeypatch, "off"), pytest.raises(ModelError, match=f"{said}.*--numerics float32"):
        load_model("random-tiny", numerics="integer")
    with way(monkeypatch, "portable"):
        load_model("random-tiny", numerics="integer")  # by the kernels


@pytest.mark.slow
@pytest.mark.parametrize("most", ["AVX2", "AVX512_CORE", "ALL"])
def test_a_processor_that_saturates_is_found_out(most: str) -> None:
    """OneDNN adds int8 products in 16 bits where there is no VNNI."""
    code = (
        "from torch import device; from pd_core.integer.device_check import check_bits\n"
        "check_bits(device('cpu'))"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": most}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


def test_nothing_stays_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's device without memory refuses what is mixed, as a GPU does."""
    monkeypatch.setattr(torch, "isfinite", lambda _: torch.ones(1))
    monkeypatch.setattr(exact_products, "multiplies_int8", lambda _: True)
    config = SHAPES["odd sizes, norms, shared keys and values"]
    model = IntegerLM(config, weights_of(config).__getitem__, device=torch.device("meta"))
    cache = model.make_cache(1)
    for first, count in ((0, 30), (30, 1)):
        rows = model.forward(TOKENS[:count], [Segment(cache, first, count)])
        assert rows.device.type == "meta"


# Each rounds once, or not at all, whatever computes it.
_ONE_ROUNDING = {
    *("abs", "add", "add_", "amax", "clamp", "div", "masked_fill", "masked_fill_", "mul", "neg"),
    *("reciprocal", "round", "sqrt", "sub", "to", "where"),
}
_MOVES = {
    *("alias", "cat", "copy_", "detach", "detach_", "empty_like", "fill_", "flatten", "full_like"),
    *("index", "index_put_", "lift_fresh", "numpy_T", "pad", "repeat_interleave", "reshape"),
    *("resolve_conj", "resolve_neg", "select", "slice", "transpose", "unsqueeze", "view", "zeros"),
}


class _OneRounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at every operation on floats: one rounding, or an exact sum of integers."""

    def __init__(self) -> None:
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.").split(".")[0]
        if isinstance(out, Tensor) and out.is_floating_point():
            if name == "matmul":
                self._exact(*args)
            else:
                assert name in _ONE_ROUNDING | _MOVES, f"{name} of floats"
        if name == "div":
            assert all(isinstance(each, Tensor) and each.dim() for each in args), "of a number"
        if name in ("add", "sub"):
            assert "alpha" not in (kwargs or {}), "a product and a sum in one"
        return out

    def _exact(self, a: Tensor, b: Tensor) -> None:
        self.products += 1
        assert torch.equal(a, a.round())
        assert torch.equal(b, b.round())
        most = float(a.abs().max()) * float(b.abs().max()) * a.shape[-1]
        assert most < (2.0**24 if a.dtype == torch.float32 else 2.0**53)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_operation_rounds_once(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_products, "multiplies_int8", lambda _: False)
    with way(monkeypatch, "off"):
        model = IntegerLM(SHAPES[shape], weights_of(SHAPES[shape]).__getitem__, device=CPU)
        hidden_and_logits(model)  # computes the angles, which is no work of the device
        with _OneRounding() as seen:
            hidden_and_logits(model)
    assert seen.products > 20
