"""The device client: handshake, planning from estimates, and requests no side can take."""

import asyncio
import logging
from dataclasses import replace

import pytest

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.shaped_link import ShapedCloudLink
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.errors import (
    CloudUnavailable,
    FingerprintMismatch,
    InvalidRequest,
    PdError,
    PromptTooLong,
    TokenOutOfVocabulary,
)
from pd_core.generation import Fingerprints, Limits, Load, ModelCard, ServerInfo, Start
from pd_core.sampling_params import SamplingParams
from pd_device_client.api.completions.event_report import plan_report
from pd_device_client.client.client import DeviceClient
from pd_device_client.client.handshake import shake_hands
from pd_device_client.client.measure import measure_engine
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import CloudStream
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.planning.speeds.profiles import LINK_PROFILES, SpeedProfile
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud

PROFILE = SpeedProfile("test", "a test", 1 / 400, 0.05)
CARD = ModelCard("d", "torch", Fingerprints("t", "c", "w", "n"), VOCAB_SIZE, (EOS,), 1000)
THEIRS = replace(CARD, name="m")
INFO = ServerInfo("v", THEIRS, Limits(500, 4, 4), Load())


def _request(num_prompt: int = 200, max_tokens: int = 60, length: int = 30) -> Ask:
    sampling = SamplingParams(forced_length=length)
    return Ask("r", tuple(i % 40 for i in range(num_prompt)), max_tokens, sampling)


def _engine(max_context_tokens: int = 100_000) -> EmulatedDeviceEngine:
    return EmulatedDeviceEngine(
        PROFILE,
        vocab_size=VOCAB_SIZE,
        eos_token_ids=[EOS],
        max_context_tokens=max_context_tokens,
    )


class _Unreachable(ScriptedCloud):
    async def info(self) -> ServerInfo:
        raise CloudUnavailable("nobody listens there")


def test_equal_fingerprints_allow_a_handoff() -> None:
    assert shake_hands(CARD, THEIRS).mismatch == ""
    assert shake_hands(CARD, THEIRS).exactness == "identical"


def test_other_numerics_are_consistent_only() -> None:
    other = replace(THEIRS, fingerprints=replace(THEIRS.fingerprints, numerics_id="cuda"))
    assert shake_hands(CARD, other).mismatch == ""
    assert shake_hands(CARD, other).exactness == "consistent"


@pytest.mark.parametrize(
    ("field", "word"),
    [("tokenizer", "tokenizers"), ("chat_template", "chat templates"), ("weights", "weights")],
)
def test_a_mismatch_is_named(field: str, word: str) -> None:
    other = replace(THEIRS, fingerprints=replace(THEIRS.fingerprints, **{field: "x"}))
    assert word in shake_hands(CARD, other).mismatch


def test_an_unknown_digest_is_not_compared() -> None:
    assert shake_hands(replace(CARD, fingerprints=Fingerprints()), THEIRS).mismatch == ""


def test_other_end_of_sequence_ids_are_no_partner() -> None:
    assert "end-of-sequence" in shake_hands(CARD, replace(THEIRS, eos_token_ids=(1, EOS))).mismatch


def test_a_cloud_with_an_emulated_sampler_is_no_partner_of_a_real_engine() -> None:
    assert "samplers" in shake_hands(CARD, replace(THEIRS, sampler="rolling-hash")).mismatch


def _answer(client: DeviceClient, request: Ask, mode: str) -> Outcome:
    async def main() -> Outcome:
        await client.start()
        session = client.session(replace(request, mode=Mode(mode)))
        async for _ in session.run():
            pass
        await client.close()
        return session.outcome

    return run_virtual(main())


def test_it_measures_plans_and_carries() -> None:
    client = DeviceClient(cloud=ScriptedCloud(), engine=_engine(), pace_s=0.1)
    outcome = _answer(client, _request(), "pd-device")
    assert client.device_profile.prefill_b_s == pytest.approx(1 / 400)
    assert client.device_profile.decode_s == pytest.approx(0.05)
    assert outcome.mode == "pd-device"
    assert 1 <= outcome.planned_tokens <= 10
    assert (len(outcome.shown), outcome.finish_reason) == (30, "stop")
    assert outcome.exactness == "identical"


def test_an_unreachable_cloud_means_the_device_goes_on_alone_and_says_so() -> None:
    client = DeviceClient(cloud=_Unreachable(), engine=_engine(), pace_s=0.1)
    outcome = _answer(client, _request(), "cloud-only")
    assert outcome.notes == ["the device goes on alone: nobody listens there"]
    assert (outcome.mode, len(outcome.shown)) == ("device-only", 30)


def test_an_unreachable_cloud_and_no_device_is_the_cloud_error() -> None:
    client = DeviceClient(cloud=_Unreachable(), engine=None, pace_s=0.1)
    with pytest.raises(CloudUnavailable, match="nobody listens"):
        _answer(client, _request(), "pd-device")


@pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE])
def test_token_ids_outside_the_vocabulary(token_id: int) -> None:
    client = DeviceClient(cloud=ScriptedCloud(), engine=_engine(), pace_s=0.1)
    with pytest.raises(TokenOutOfVocabulary, match=f"token id {token_id} "):
        _answer(client, Ask("r", (1, token_id), 5), "pd-device")


def test_what_fits_only_the_cloud_is_answered_by_the_cloud() -> None:
    client = DeviceClient(cloud=ScriptedCloud(), engine=_engine(max_context_tokens=100), pace_s=0.1)
    outcome = _answer(client, _request(), "pd-device")
    assert outcome.mode == "cloud-only"
    assert "the local model's context of 100" in outcome.notes[0]


def test_what_fits_neither_side_is_refused_with_the_numbers() -> None:
    client = DeviceClient(cloud=ScriptedCloud(), engine=_engine(max_context_tokens=100), pace_s=0.1)
    with pytest.raises(PdError, match="context of 10000"):
        _answer(client, _request(num_prompt=9990), "pd-device")
    alone = DeviceClient(cloud=None, engine=_engine(max_context_tokens=100), pace_s=0.1)
    with pytest.raises(PromptTooLong):
        _answer(alone, _request(), "device-only")


def test_it_learns_how_long_answers_are() -> None:
    async def main() -> list[int]:
        client = DeviceClient(
            cloud=ScriptedCloud(Script(first_token_s=0.2)),
            engine=EmulatedDeviceEngine(
                SpeedProfile("d", "a test", 1 / 400, 0.12),
                vocab_size=VOCAB_SIZE,
                eos_token_ids=[EOS],
            ),
            pace_s=0.1,
        )
        await client.start()
        planned = []
        for _ in range(2):
            session = client.session(_request(length=12))
            planned.append(session.plan.cloud_tokens)
            async for _ in session.run():
                pass
        return planned

    # D > tau: the budget depends on N, first the limit of 60, then what answers really took.
    first, second = run_virtual(main())
    assert second < first


def test_a_throttled_engine_takes_the_profile_s_time() -> None:
    async def main() -> SpeedProfile:
        fast = SpeedProfile("fast", "a test", 1e-6, 1e-6)
        engine = EmulatedDeviceEngine(fast, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
        throttled = ThrottledEngine(engine, PROFILE)
        assert "throttled to test" in throttled.card.name
        return await measure_engine(throttled)

    measured = run_virtual(main())
    assert (measured.prefill_b_s, measured.decode_s) == pytest.approx((1 / 400, 0.05))


def test_a_shaped_link_adds_a_round_trip_and_keeps_the_order() -> None:
    lte = replace(LINK_PROFILES["lte"], jitter_s=0.05, loss=0.1)
    plain = DeviceClient(cloud=ScriptedCloud(), engine=None, pace_s=0.01)
    shaped = DeviceClient(
        cloud=ShapedCloudLink(ScriptedCloud(), lte, seed=3), engine=None, pace_s=0.01
    )
    direct = _answer(plain, _request(), "cloud-only")
    delayed = _answer(shaped, _request(), "cloud-only")
    assert direct.ttft_s is not None
    assert delayed.ttft_s is not None
    assert delayed.ttft_s > direct.ttft_s + 0.03
    assert delayed.token_ids == direct.token_ids
    assert delayed.notes == []


class _Carded(ScriptedCloud):
    """A scripted cloud with a card of its own, which may change."""

    card: ServerInfo = INFO

    async def info(self) -> ServerInfo:
        return self.card


def _of(model: ModelCard) -> ServerInfo:
    return replace(INFO, model=model)


def _differing(**prints: str) -> _Carded:
    cloud = _Carded()
    known = Fingerprints("t", "c", "w", "n")
    cloud.card = _of(replace(THEIRS, sampler="rolling-hash", fingerprints=replace(known, **prints)))
    return cloud


def _with_prints() -> EmulatedDeviceEngine:
    return EmulatedDeviceEngine(
        PROFILE,
        vocab_size=VOCAB_SIZE,
        eos_token_ids=[EOS],
        fingerprints=Fingerprints("t", "c", "w", "n"),
    )


def test_another_tokenizer_is_no_cloud_to_speak_to() -> None:
    client = DeviceClient(cloud=_differing(tokenizer="x"), engine=_with_prints(), pace_s=0.1)
    with pytest.raises(FingerprintMismatch, match="tokenizers"):
        _answer(client, _request(), "cloud-only")
    client = DeviceClient(cloud=_differing(tokenizer="x"), engine=_with_prints(), pace_s=0.1)
    outcome = _answer(client, _request(), "pd-device")
    assert (outcome.mode, outcome.exactness) == ("device-only", "consistent")
    assert "tokenizers" in outcome.notes[0]


def test_other_weights_answer_alone_and_promise_nothing() -> None:
    client = DeviceClient(cloud=_differing(weights="x"), engine=_with_prints(), pace_s=0.1)
    outcome = _answer(client, _request(), "cloud-only")
    assert (outcome.mode, outcome.exactness) == ("cloud-only", "consistent")
    assert "weights" in outcome.notes[0]


def test_device_only_needs_a_device() -> None:
    client = DeviceClient(cloud=ScriptedCloud(), engine=None, pace_s=0.1)
    with pytest.raises(InvalidRequest, match="local engine"):
        _answer(client, _request(), "device-only")


@pytest.mark.parametrize("max_tokens", [60, 16], ids=["below the pace", "not in time"])
def test_a_device_that_was_slow_for_a_moment_takes_part_again(max_tokens: int) -> None:
    async def main() -> list[str]:
        client = DeviceClient(cloud=ScriptedCloud(), engine=_engine(), pace_s=0.1)
        await client.start()
        for _ in range(10):  # of the last 32 passes
            client.device_estimate.observe_pass(100, 1, 0.5)
        modes = []
        for _ in range(12):
            session = client.session(_request(max_tokens=max_tokens, length=12))
            async for _ in session.run():
                pass
            modes.append(session.outcome.mode)
        return modes

    modes = run_virtual(main())
    assert modes[0] == "cloud-only"
    assert modes[8:] == ["pd-device"] * 4


def test_a_broken_promise_and_another_mode_are_told() -> None:
    client = DeviceClient(cloud=None, engine=_engine(), pace_s=0.01)
    outcome = _answer(client, _request(), "device-only")
    assert outcome.notes == ["this device makes 20 tokens a second; 100 were asked for"]
    fast = SpeedProfile("fast", "a test", 1e-5, 0.01)
    client = DeviceClient(cloud=_busy(), engine=_engine(), pace_s=0.1, device_profile=fast)
    outcome = _answer(client, _request(), "pd-device")
    assert outcome.notes == [
        "This device answers alone. It reads the 200 tokens of the text first; its first word "
        "comes after about 0.03 s."
    ]


@pytest.mark.parametrize("decode_s", [0.01, 0.5])
def test_a_terminal_s_note_and_the_page_s_sentence_are_the_same(decode_s: float) -> None:
    async def main() -> None:
        profile = SpeedProfile("any", "a test", 1e-5, decode_s)
        cloud = _busy()
        if decode_s > 0.1:
            cloud.card = replace(cloud.card, load=Load(decode_step_s=0.02))
        client = DeviceClient(cloud=cloud, engine=_engine(), pace_s=0.1, device_profile=profile)
        await client.start()
        session = client.session(_request())
        assert session.plan.mode is not Mode.PD_DEVICE
        report = plan_report(session)
        assert report["words"] in session.outcome.notes
        assert set(session.outcome.notes) == {report["words"], *report["broken"]}
        await client.close()

    run_virtual(main())


def _busy() -> _Carded:
    cloud = _Carded()
    load = Load(queued_prefill_tokens=100_000, prefill_tokens_per_s=1000, decode_step_s=0.02)
    cloud.card = replace(_of(replace(THEIRS, sampler="rolling-hash")), load=load)
    return cloud


def test_a_cloud_busy_or_down_at_start_is_asked_again() -> None:
    async def main() -> list[str]:
        cloud = _busy()
        client = DeviceClient(cloud=cloud, engine=_engine(), pace_s=0.1)
        await client.start()
        cloud.card = replace(cloud.card, load=Load(decode_step_s=0.02, prefill_tokens_per_s=1000))
        modes = []
        for _ in range(3):
            session = client.session(_request())
            async for _ in session.run():
                pass
            modes.append(session.outcome.mode)
            await asyncio.sleep(10)
        await client.close()
        return modes

    assert run_virtual(main()) == ["device-only", "device-only", "pd-device"]


class _Flickering(_Carded):
    """A cloud that can be turned off."""

    off = False

    async def info(self) -> ServerInfo:
        if self.off:
            raise CloudUnavailable("nobody listens there")
        return await super().info()

    async def open(self, start: Start) -> CloudStream:
        if self.off:
            raise CloudUnavailable("nobody listens there")
        return await super().open(start)


@pytest.mark.parametrize("card_too", [True, False])
def test_a_dead_cloud_is_logged_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture, card_too: bool
) -> None:
    async def main() -> list[list[str]]:
        cloud = _Flickering() if card_too else _Flickering(Script(refuse=_down))
        cloud.card = _of(replace(THEIRS, sampler="rolling-hash"))
        client = DeviceClient(cloud=cloud, engine=_engine(), pace_s=0.01)
        await client.start()
        cloud.off = card_too
        lines = []
        for _ in range(2):
            for _ in range(6):
                async for _ in client.session(_request()).run():
                    pass
                await asyncio.sleep(6 if card_too else 0.1)
            lines.append([record.message for record in caplog.records])
            caplog.clear()
            cloud.off = False
            cloud.script = Script()
            await asyncio.sleep(200)
            async for _ in client.session(_request()).run():
                pass
            lines.append([record.message for record in caplog.records])
            caplog.clear()
            cloud.off = card_too
            cloud.script = Script() if card_too else Script(refuse=_down)
        await client.close()
        return lines

    with caplog.at_level(logging.WARNING):
        said = run_virtual(main())
    dead = ["the cloud cannot be used, until further word: nobody listens there"]
    assert said == [dead, ["the cloud can be used again"]] * 2


def _down(_number: int) -> PdError:
    return CloudUnavailable("nobody listens there")
