"""A low battery leaves answers to a cloud that can carry them, and to no other."""

import pytest

from pd_device_client.api.completions.parameters import CompletionParameters
from pd_device_client.api.completions.questions import Questions
from pd_device_client.api.http.places import Places
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Mode
from pd_device_client.device.battery import Battery
from pd_device_client.device.device import Device
from tests.api_server import EOS, QUICK, TOKENIZER, emulated_engine, loaded_model
from tests.scripted_cloud import ScriptedCloud


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eos", "plugged", "makers"),
    [
        (EOS, False, (5, 0)),
        (EOS, None, (0, 5)),
        (EOS + 1, False, (0, 5)),  # another model's: nothing can be handed over
    ],
)
async def test_a_low_battery_leaves_answers_to_a_cloud_of_the_same_model(
    eos: int, plugged: bool | None, makers: tuple[int, int]
) -> None:
    cloud = ScriptedCloud(vocab_size=TOKENIZER.vocab_size, eos=eos)
    client = DeviceClient(
        cloud=cloud,
        engine=emulated_engine(),
        pace_s=1.0,
        device_profile=QUICK,
        text=TOKENIZER.stream,
    )
    await client.start()
    questions = Questions(
        AnswerSettings(Mode.PD_DEVICE), Places(1), lambda _: None, lambda: 0,
        battery=lambda: Battery(5, plugged=plugged),
    )  # fmt: skip
    asked = CompletionParameters(prompt="hello there", max_tokens=5, ignore_eos=True)
    answer = await questions.answer(Device(loaded_model(), client), asked, asked_s=0.0)
    told = (await answer.whole())["choices"][0]["pd"]
    await client.close()
    assert (told["cloud_tokens"], told["device_tokens"]) == makers
