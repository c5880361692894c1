"""An engine's passes are timed over all positions, and show its profile."""

import pytest

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_device_client.client.calibration import calibration_tokens, time_passes
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.planning.speeds.speed_fit import PassTime, fit_speeds

TRUE = SpeedProfile("t", "a test", 1e-3, 0.01, 0.004, 3e-7, decode_l_s=2e-6)


def _engine(max_context_tokens: int = 4096, chunk_tokens: int = 128) -> EmulatedDeviceEngine:
    return EmulatedDeviceEngine(
        TRUE,
        vocab_size=100,
        eos_token_ids=[99],
        max_context_tokens=max_context_tokens,
        chunk_tokens=chunk_tokens,
    )


def test_a_calibration_finds_the_profile() -> None:
    ticks: list[int] = []

    async def main() -> list[PassTime]:
        engine = _engine()
        longest, total = calibration_tokens(engine, 2000, 3)
        assert longest == 1920
        passes = await time_passes(engine, longest, 3, ticks.append)
        assert sum(ticks) == pytest.approx(total, rel=0.05)
        return passes

    found = fit_speeds(run_virtual(main()), "f", "a test").profile
    assert found.prefill_s(1920) == pytest.approx(TRUE.prefill_s(1920), rel=1e-3)
    assert found.prefill_s(128) == pytest.approx(TRUE.prefill_s(128), rel=1e-2)
    assert found.pass_s(1500, 1) == pytest.approx(TRUE.pass_s(1500, 1), rel=1e-3)


@pytest.mark.parametrize(("context", "chunk"), [(128, 128), (64, 16), (160, 128), (200, 64)])
def test_a_small_context_is_enough(context: int, chunk: int) -> None:
    async def main() -> list[PassTime]:
        engine = _engine(context, chunk)
        longest, _ = calibration_tokens(engine, 4096, 2)
        return await time_passes(engine, longest, 2)

    passes = run_virtual(main())
    assert max(p.first_position + p.num_tokens for p in passes) <= context
    fit_speeds(passes, "f", "a test")
