"""A device that torch cannot use is refused before anything is loaded, with the mend."""

import pytest
import torch

from pd_core.checkpoints.loading import load_model
from pd_core.errors import ModelError


def _absent_gpu() -> str:
    return f"cuda:{torch.cuda.device_count() + 9}"


@pytest.mark.parametrize("device", ["bogus", "", "meta", "cpu:x", _absent_gpu()])
def test_a_device_that_is_not_there_is_refused_in_one_line(device: str) -> None:
    with pytest.raises(ModelError, match="use --device cpu") as raised:
        load_model("no/such/place", device=device)
    assert f"device {device!r}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_refused_where_there_is_none() -> None:
    with pytest.raises(ModelError, match="device 'cuda'"):
        load_model("random-tiny", device="cuda")
