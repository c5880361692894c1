"""gRPC's proxy: never on loopback, and named where it stands between."""

import pytest

from pd_core.sockets.loopback import is_loopback_url
from pd_device_client.cloud.proxy import proxy_options, proxy_words


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_proxy_there_is_nothing_to_say() -> None:
    assert proxy_words("cloud.example") == ""
    assert proxy_options("cloud.example") == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.9.9.9",
        "localhost",
        "LocalHost",
        "localhost.",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_loopback_uses_none(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert proxy_options(host) == [("grpc.enable_http_proxy", 0)]
    assert proxy_words(host) == ""


def test_the_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://other.example:3128")
    monkeypatch.setenv("https_proxy", "http://me:s3cret@proxy.example:3128")
    words = proxy_words("cloud.example")
    assert "the variable https_proxy sends it through the proxy proxy.example:3128" in words
    assert "put cloud.example into no_proxy" in words
    assert "s3cret" not in words


@pytest.mark.parametrize(
    ("host", "excepted", "used"),
    [
        ("cloud.example", "cloud.example", False),
        ("cloud.example", "other.example, .example", False),
        ("10.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "11.0.0.0/8,nonsense/", True),
        ("cloud.example", "", True),
    ],
)
def test_exceptions_are_heeded(
    monkeypatch: pytest.MonkeyPatch, host: str, excepted: str, used: bool
) -> None:
    monkeypatch.setenv("grpc_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", excepted)
    assert bool(proxy_words(host)) is used


@pytest.mark.parametrize("value", ["https://proxy.example", "proxy.example:3128", "http://[x"])
def test_what_grpc_does_not_take_as_a_proxy_is_not_named(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("http_proxy", value)
    assert proxy_words("cloud.example") == ""


def test_an_empty_variable_counts_as_set_as_it_does_for_grpc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "cloud.example")
    monkeypatch.setenv("no_grpc_proxy", "")
    assert "http_proxy" in proxy_words("cloud.example")  # it is used in spite of no_proxy
    monkeypatch.setenv("https_proxy", "")
    assert proxy_words("cloud.example") == ""


def test_urls_of_this_machine() -> None:
    assert is_loopback_url("http://127.0.0.1:8000/v1")
    assert is_loopback_url("https://[::1]/x")
    assert not is_loopback_url("https://cloud.example/127.0.0.1")
    assert not is_loopback_url("http://[broken")
