"""When a client asks for a refined prompt: only below a quality floor of 1, and where it helps."""

from dataclasses import replace

import pytest

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.errors import ConfigError
from pd_core.refinement import MOST_PROTECTED, Ranges
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.device.promise_settings import PromiseSettings
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.planning.planner import CloudForecast, plan_request
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.session import Session
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud

PROFILE = SpeedProfile("test", "a test", 1 / 400, 0.05)
N = 4000
KEPT: Ranges = ((0, 1000), (2000, 2500), (3500, N))
PROTECTED: Ranges = ((0, 3), (N - 1, N))
ASK = Ask("r", tuple(i % 40 for i in range(N)), 500, SamplingParams(forced_length=120))


class Whole(EmulatedDeviceEngine):
    @property
    def leaves_out(self) -> bool:
        return False


def engine(kind: type[EmulatedDeviceEngine] = EmulatedDeviceEngine) -> EmulatedDeviceEngine:
    return kind(PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])


def carried(
    quality_floor: float,
    ask: Ask = ASK,
    protected: Ranges = PROTECTED,
    kind: type[EmulatedDeviceEngine] = EmulatedDeviceEngine,
) -> tuple[Session, ScriptedCloud]:
    """Carry one long prompt, of which the device needs 10 s."""
    cloud = ScriptedCloud(Script(refined=[KEPT]))

    async def main() -> Session:
        client = DeviceClient(
            cloud=cloud,
            engine=engine(kind),
            pace_s=0.2,
            device_profile=PROFILE,
            promise=Promise(0.2, quality_floor=quality_floor),
            protect=lambda _: protected,
        )
        await client.start()
        session = client.session(ask)
        async for _ in session.run():
            pass
        await client.close()
        return session

    return run_virtual(main()), cloud


def test_a_floor_below_one_saves_the_cloud_tokens() -> None:
    exact, cloud = carried(1.0)
    assert {start.keep_ratio for start in cloud.starts} == {1.0}
    assert exact.outcome.exactness == "identical"
    refined, cloud = carried(0.5)
    assert refined.plan.keep_ratio == 0.5
    assert cloud.starts[0].keep_ratio == 0.5
    assert cloud.starts[0].protected_ranges == PROTECTED
    assert refined.outcome.exactness == "refined"
    assert refined.outcome.left_out_tokens > 0.4 * N
    assert refined.outcome.planned_tokens < 0.65 * exact.outcome.planned_tokens
    assert refined.outcome.cloud_tokens < 0.65 * exact.outcome.cloud_tokens
    for outcome in (exact.outcome, refined.outcome):
        assert len(outcome.shown) == 120
        assert outcome.largest_gap_s == pytest.approx(0.2)


def test_a_request_may_have_a_floor_of_its_own() -> None:
    session, _ = carried(0.5, replace(ASK, promise=Promise(0.2)))
    assert session.plan.keep_ratio == 1.0
    session, _ = carried(1.0, replace(ASK, promise=Promise(0.2, quality_floor=0.5)))
    assert session.plan.keep_ratio == 0.5


@pytest.mark.parametrize("mode", [Mode.DEVICE_ONLY, Mode.CLOUD_ONLY])
def test_one_side_alone_reads_the_whole_prompt(mode: Mode) -> None:
    session, cloud = carried(0.5, replace(ASK, mode=mode))
    assert session.plan.keep_ratio == 1.0
    assert {start.keep_ratio for start in cloud.starts} <= {1.0}
    assert session.outcome.exactness == "identical"


def test_a_short_prompt_is_read_whole() -> None:
    session, cloud = carried(0.5, replace(ASK, prompt_token_ids=ASK.prompt_token_ids[:100]))
    assert session.plan.keep_ratio == 1.0
    assert {start.keep_ratio for start in cloud.starts} <= {1.0}


def test_an_engine_that_reads_only_whole_prompts_is_not_asked_to() -> None:
    session, cloud = carried(0.5, kind=Whole)
    assert session.plan.keep_ratio == 1.0
    assert {start.keep_ratio for start in cloud.starts} == {1.0}


def test_too_many_protected_ranges_protect_the_whole_prompt() -> None:
    many = tuple((2 * i, 2 * i + 1) for i in range(MOST_PROTECTED + 1))
    session, cloud = carried(0.5, protected=many)
    assert cloud.starts[0].protected_ranges == ((0, N),)
    assert session.outcome.exactness == "identical"


def test_llama_cpp_refuses_a_floor_below_one() -> None:
    with pytest.raises(ConfigError, match="reads only as a whole"):
        DeviceSettings(engine="llama-cpp", promises=PromiseSettings(quality_floor=0.9))
    assert DeviceSettings(engine="llama-cpp").promise.quality_floor == 1.0


def test_a_refined_plan_that_saves_nothing_is_not_taken() -> None:
    cloud = CloudForecast(0.3, 0.02)

    def plan(prompt_tokens: int, floor: float) -> tuple[float, int]:
        promise = Promise(0.2, quality_floor=floor)
        best = plan_request(prompt_tokens, 100, 200, promise, device=PROFILE, cloud=cloud)
        return best.keep_ratio, best.cloud_tokens

    assert plan(130, 0.5)[0] == 1.0
    assert plan(2000, 0.5)[0] == 0.5
    assert plan(2000, 0.6)[0] == 0.6
    assert plan(2000, 0.25)[1] < plan(2000, 0.5)[1] < plan(2000, 1.0)[1]
