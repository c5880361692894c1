"""The scripts of deploy/ do what its README says, run for real."""

import http.server
import os
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from pd_server.keys.key_file import named_keys
from pd_server.keys.keyring import Keyring

DEPLOY = Path(__file__).parents[3] / "deploy"


def _make_secrets(folder: Path, *hosts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEPLOY / "make-secrets.sh", *hosts],
        env={**os.environ, "PD_SECRETS": str(folder)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


def test_secrets_name_every_host_and_are_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    _make_secrets(folder, "cloud.example", "192.0.2.7")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"cloud", "localhost", "cloud.example"}
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert addresses == {"127.0.0.1", "192.0.2.7"}
    assert len((folder / "api.key").read_text().strip()) == 64
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "tls.crt", folder / "tls.key")


def test_secrets_are_not_overwritten(tmp_path: Path) -> None:
    _make_secrets(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert "kept" in _make_secrets(tmp_path, "other.example").stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def _verify(folder: Path, name: str, purpose: str) -> None:
    """Check a certificate as the strictest client would."""
    subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-purpose", purpose),
            *("-CAfile", folder / "ca.crt", folder / f"{name}.crt"),
        ],
        check=True,
        timeout=30,
        stdout=subprocess.DEVNULL,
    )


def test_a_renewal_changes_nothing_for_clients(tmp_path: Path) -> None:
    _make_secrets(tmp_path, "cloud.example")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    _verify(tmp_path, "tls", "sslserver")
    _make_secrets(tmp_path, "--renew")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"tls.crt", "tls.key"}
    _verify(tmp_path, "tls", "sslserver")
    names = [
        x509.load_pem_x509_certificate(each["tls.crt"])
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
        for each in (before, after)
    ]
    assert names[0] == names[1]


def test_a_client_gets_a_certificate_of_its_own(tmp_path: Path) -> None:
    _make_secrets(tmp_path)
    _make_secrets(tmp_path, "--client", "laptop-1")
    _verify(tmp_path, "laptop-1", "sslclient")
    assert stat.S_IMODE((tmp_path / "laptop-1.key").stat().st_mode) == 0o600
    for wrong in ("laptop-1", "../laptop-2", "tls", ""):
        with pytest.raises(subprocess.CalledProcessError):
            _make_secrets(tmp_path, "--client", wrong)


def test_what_an_older_version_made_is_kept_and_completed(tmp_path: Path) -> None:
    for name in ("tls.crt", "tls.key", "api.key"):
        (tmp_path / name).write_text(f"old {name}")
    _make_secrets(tmp_path)
    for name in ("tls.crt", "tls.key", "api.key"):
        assert (tmp_path / name).read_text() == f"old {name}"
    assert (tmp_path / "ca.crt").read_text() == "old tls.crt"
    assert (tmp_path / "hf.token").read_text() == ""


def test_a_made_key_is_the_one_whose_hash_the_server_reads(tmp_path: Path) -> None:
    told = [
        subprocess.run(
            [DEPLOY / "make-key.sh", name],
            env={**os.environ, "PD_SECRETS": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        for name in ("anna", "lab.bench-2")
    ]
    (tmp_path / "keys.toml").write_text("".join(told))
    keyring = Keyring(named_keys(tmp_path / "keys.toml", None))
    for name in ("anna", "lab.bench-2"):
        key = (tmp_path / f"{name}.key").read_text()
        assert key.strip() not in "".join(told)
        assert stat.S_IMODE((tmp_path / f"{name}.key").stat().st_mode) == 0o600
        assert keyring.account(f"Bearer {key.strip()}").name == name


@pytest.mark.parametrize("name", ["", "a b", "../a", "a" * 65])
def test_a_key_needs_a_name(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [DEPLOY / "make-key.sh", name],
        env={**os.environ, "PD_SECRETS": str(tmp_path)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


def test_an_unknown_image_is_named_as_such() -> None:
    done = subprocess.run(
        [DEPLOY / "build-with-buildah.sh", "nonesuch"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "nonesuch" in done.stderr
    assert "server device bench vllm" in done.stderr


class _Ready(http.server.BaseHTTPRequestHandler):
    """Answers /readyz with the status its server holds."""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.send_response(self.server.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


class _Server(http.server.ThreadingHTTPServer):
    status = 200


@contextmanager
def _serving(certificate: Path | None = None) -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Ready) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _healthcheck(port: int, **environment: str) -> int:
    return subprocess.run(
        [sys.executable, DEPLOY / "healthcheck.py"],
        env={**os.environ, "PD_SERVER_HTTP_PORT": str(port), **environment},
        capture_output=True,
        timeout=30,
        check=False,
    ).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_healthcheck_follows_readiness(status: int, expected: int) -> None:
    with _serving() as server:
        server.status = status
        assert _healthcheck(server.server_port) == expected


def test_healthcheck_speaks_tls_where_the_server_does(tmp_path: Path) -> None:
    _make_secrets(tmp_path)
    certificate = tmp_path / "tls.crt"
    with _serving(certificate) as server:
        assert _healthcheck(server.server_port, PD_SERVER_TLS_CERT=str(certificate)) == 0


def test_healthcheck_fails_when_nobody_listens() -> None:
    with _serving() as server:
        port = server.server_port
    assert _healthcheck(port) == 1
