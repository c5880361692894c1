"""The address of an OpenAI-compatible server."""

import pytest

from pd_core.errors import ConfigError
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.choice import CloudChoice
from pd_device_client.cloud.egress import way_out
from pd_device_client.cloud.openai.base_url import checked_base_url
from pd_device_client.cloud.openai.openai_link import OpenAiCloudLink
from pd_device_client.contract.ask import Mode


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://cloud.example", "https://cloud.example/v1"),
        ("https://cloud.example/v1/", "https://cloud.example/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("http://localhost:11434/v1/chat/completions", "http://localhost:11434/v1"),
        ("https://h:8443/v1/completions", "https://h:8443/v1"),
    ],
)
def test_the_path_is_v1_unless_another_is_given(given: str, used: str) -> None:
    assert checked_base_url(given) == used


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("ftp://cloud.example", "no address"),
        ("https://", "no address"),
        ("https://cloud.example:port/v1", "no address"),
        ("https://cloud example/v1", "no address"),
        ("https://me:s3cret@cloud.example/v1", "user name or a password"),
        ("https://cloud.example/v1?key=s3cret", "after [?] or #"),
        ("http://cloud.example/v1", "plaintext"),
        ("http://192.0.2.1:8000", "--insecure"),
    ],
)
def test_what_cannot_or_may_not_be_used_is_refused_and_no_secret_is_repeated(
    given: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        checked_base_url(given)
    assert "s3cret" not in str(refused.value)


def test_plaintext_to_another_machine_must_be_asked_for_by_name() -> None:
    assert checked_base_url("http://192.0.2.1:8000", insecure=True).endswith(":8000/v1")


async def test_a_url_is_another_link_behind_the_same_way_out() -> None:
    link = way_out(CloudAddress("http://127.0.0.1:1/v1", api_key="k"), Mode.PD_DEVICE)
    assert isinstance(link, OpenAiCloudLink)
    await link.close()
    assert way_out(CloudAddress("http://127.0.0.1:1/v1"), Mode.DEVICE_ONLY) is None


async def test_a_url_can_be_chosen_and_does_not_get_another_cloud_s_key() -> None:
    address = CloudAddress("https://a.example/v1", api_key="secret", model="m", api="vllm")
    other = address.to("https://b.example/v1")
    assert (other.api_key, other.model, other.api) == (None, None, "auto")
    assert address.to("https://a.example/v1") == address
    assert "secret" not in repr(address)
    choice = CloudChoice(
        None, lambda t: None if t is None else way_out(address.to(t), Mode.PD_DEVICE)
    )
    link = choice.choose("https://c.example/v1")
    assert isinstance(link, OpenAiCloudLink)
    await link.close()
    with pytest.raises(ConfigError, match="plaintext"):
        choice.choose("http://c.example/v1")
    assert choice.target == "https://c.example/v1"


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("cloud.example:50051", "cloud.example"),
        ("[::1]:50051", "[::1]"),
        ("https://cloud.example/v1", "cloud.example"),
        ("http://[::1]:8000/v1", "::1"),
        ("http://[", ""),
    ],
)
def test_the_host_of_either_form(target: str, host: str) -> None:
    assert CloudAddress(target).host == host
