"""Weights are rounded and packed a few rows at a time, and are what they are as a whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pd_core.integer import weights
from pd_core.integer.group_rounding import round_groups
from pd_core.integer.huge_pages import HugePages
from pd_core.integer.weights import GROUP, IntegerWeight, padded, round_parts, round_rows


def numbers(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


@given(data=st.data())
def test_parts_round_as_the_whole(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 70))
    weight = numbers(rows, cols, data.draw(st.integers(0, 99)))
    weight[data.draw(st.integers(0, rows - 1))] *= data.draw(st.sampled_from([0.0, -1.0, 1e-31]))
    weight = weight.to(data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])))
    scaled, scales = weights.scaled_rows(weight.float(), 127)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(weights, "_TOGETHER", data.draw(st.integers(1, 200)))
        parts = torch.split(weight, data.draw(st.integers(1, rows)))
        for whole in (round_parts(parts, rows, cols), round_rows(weight)):
            assert torch.equal(whole.codes, torch.round(scaled).to(torch.int8))
            assert torch.equal(whole.scales, scales[:, 0])


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_shows_in_its_scale(wrong: float) -> None:
    weight = numbers(5, 40)
    weight[3, 7] = wrong
    finite = torch.isfinite(round_parts(torch.split(weight, 2), 5, 40).scales)
    assert finite.tolist() == [True, True, True, False, True]


def as_defined(weight: IntegerWeight) -> torch.Tensor:
    """Return the panels as kernel.h describes them, element by element."""
    codes = weight.codes.int()
    rows, cols = codes.shape
    panels = torch.zeros(weight.panels_shape, dtype=torch.uint8)
    for row in range(rows):
        for col in range(cols):
            panel, line, element = row // 16, row % 16, col % GROUP
            code = int(codes[row, col])
            if weight.steps is None:
                panels[panel, col // 4, line, col % 4] = code + 128
            else:
                byte = (panel, col // GROUP, element % 16 // 4, line, element % 4)
                panels[byte] |= (code + 8) << (4 if element >= 16 else 0)
    return panels


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 16 * 64 * 2, 1 << 18])
@pytest.mark.parametrize("bits", [8, 4])
def test_panels_lie_as_the_kernels_read_them(
    monkeypatch: pytest.MonkeyPatch, together: int, bits: int
) -> None:
    monkeypatch.setattr(weights, "_TOGETHER", together)
    weight = numbers(70, 60)
    whole = padded(round_rows(weight) if bits == 8 else round_groups(weight))
    panels = HugePages().room(whole.panels_shape)
    whole.write_panels(panels)
    assert torch.equal(panels, as_defined(whole))


def test_pieces_of_a_chunk_do_not_overlap() -> None:
    pages = HugePages()
    pieces = [pages.hold(numbers(3, size, size)) for size in (1, 7, 1000)]
    room = pages.room((5, 3)).fill_(255)
    for size, piece in zip((1, 7, 1000), pieces, strict=True):
        assert torch.equal(piece, numbers(3, size, size))
        assert piece.data_ptr() % 64 == 0
    assert room.shape == (5, 3)
