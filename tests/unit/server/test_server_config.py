"""A server listens beyond loopback only when it is protected, or told to by name."""

from pathlib import Path

import pytest
import trustme

from pd_core.errors import ConfigError
from pd_core.generation import Fingerprints, ModelCard
from pd_core.sockets.loopback import is_loopback
from pd_server.config import ServerConfig, TlsConfig
from pd_server.gate.server_card import server_card


@pytest.fixture
def tls(tmp_path: Path) -> TlsConfig:
    pair = trustme.CA().issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    return TlsConfig(tmp_path / "cert.pem", tmp_path / "key.pem")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_beyond_loopback_needs_tls_and_a_key(tls: TlsConfig) -> None:
    with pytest.raises(ConfigError, match=r"TLS.*and a key.*--insecure"):
        ServerConfig(host="0.0.0.0")
    with pytest.raises(ConfigError, match="key"):
        ServerConfig(host="0.0.0.0", tls=tls)
    with pytest.raises(ConfigError, match="TLS"):
        ServerConfig(host="0.0.0.0", api_key="k")
    ServerConfig(host="0.0.0.0", tls=tls, api_key="k")
    ServerConfig(host="0.0.0.0", insecure=True)


def test_a_key_is_not_in_the_repr() -> None:
    assert "s3cret" not in repr(ServerConfig(api_key="s3cret"))


def test_one_port_for_both_is_refused() -> None:
    with pytest.raises(ConfigError, match="--http-port"):
        ServerConfig(grpc_port=5000, http_port=5000)
    ServerConfig(grpc_port=0, http_port=0)


def test_files_that_are_no_certificate_are_refused(tmp_path: Path, tls: TlsConfig) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match="PEM"):
        TlsConfig(tmp_path / "text", tls.key)
    with pytest.raises(ConfigError, match="nowhere"):
        TlsConfig(tmp_path / "nowhere", tls.key)


def test_limits_default_to_the_model_and_cannot_exceed_it() -> None:
    card = ModelCard("m", "torch", Fingerprints(), 16, (0,), 100)
    assert server_card("1", card, 2, 3, None, None).limits.max_output_tokens == 100
    lower = server_card("1", card, 2, 3, 50, 70)
    assert (lower.limits.max_output_tokens, lower.model.max_context_tokens) == (50, 50)
    with pytest.raises(ConfigError, match="--max-context-tokens"):
        server_card("1", card, 2, 3, 101, None)
