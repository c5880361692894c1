"""The commands of docs/start/two-machines.md, run for real: certificate, key, server, client."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pd_core.errors import CloudAuthenticationFailed, TransportError
from pd_device_client.cloud.grpc_link import GrpcCloudLink

DEPLOY = Path(__file__).parents[3] / "deploy"
READY_S = 60.0


@dataclass(frozen=True, slots=True)
class _Cloud:
    """A server process with TLS and a key."""

    process: subprocess.Popen[bytes]
    secrets: Path
    grpc: str
    http: str

    @property
    def key(self) -> str:
        return (self.secrets / "api.key").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    secrets, ready = folder / "secrets", folder / "ready.json"
    environment = {**os.environ, "PD_SECRETS": str(secrets)}
    subprocess.run([DEPLOY / "make-secrets.sh"], env=environment, check=True, timeout=30)
    command = [sys.executable, "-m", "pd_server", "--grpc-port=0", "--http-port=0"]
    command += ["--model=random-tiny"]
    command += [f"--tls-cert={secrets / 'tls.crt'}", f"--tls-key={secrets / 'tls.key'}"]
    command += [f"--api-key-file={secrets / 'api.key'}", f"--ready-file={ready}"]
    with subprocess.Popen(command) as process:
        try:
            deadline_s = time.monotonic() + READY_S
            while not ready.exists():
                assert process.poll() is None, "the server ended before it was ready"
                assert time.monotonic() < deadline_s, "the server did not become ready"
                time.sleep(0.05)
            told = json.loads(ready.read_text(encoding="utf-8"))
            yield _Cloud(process, secrets, told["grpc"], told["http"])
        finally:
            process.kill()


def _get(cloud: _Cloud, path: str, key: str | None) -> int:
    """Ask over HTTPS, trusting the certificate alone, and return the status."""
    context = ssl.create_default_context(cafile=str(cloud.secrets / "tls.crt"))
    request = urllib.request.Request(f"https://{cloud.http}{path}")
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_readiness_is_open_and_the_card_is_not(cloud: _Cloud) -> None:
    assert _get(cloud, "/readyz", None) == 200
    assert _get(cloud, "/v1/info", None) == 401
    assert _get(cloud, "/v1/info", "wrong") == 401
    assert _get(cloud, "/v1/info", cloud.key) == 200


def test_the_container_health_check_passes(cloud: _Cloud) -> None:
    environment = {
        **os.environ,
        "PD_SERVER_HTTP_PORT": cloud.http.rpartition(":")[2],
        "PD_SERVER_TLS_CERT": str(cloud.secrets / "tls.crt"),
    }
    done = subprocess.run(
        [sys.executable, DEPLOY / "healthcheck.py"], env=environment, timeout=30, check=False
    )
    assert done.returncode == 0


async def test_a_client_with_certificate_and_key_gets_the_card(cloud: _Cloud) -> None:
    link = GrpcCloudLink(cloud.grpc, tls_ca=cloud.secrets / "tls.crt", api_key=cloud.key)
    info = await link.info()
    await link.close()
    assert info.model.name == "random-tiny"


async def test_a_client_without_the_key_is_refused(cloud: _Cloud) -> None:
    link = GrpcCloudLink(cloud.grpc, tls_ca=cloud.secrets / "tls.crt")
    with pytest.raises(CloudAuthenticationFailed):
        await link.info()
    await link.close()


async def test_a_client_that_does_not_trust_the_certificate_sends_no_key(cloud: _Cloud) -> None:
    link = GrpcCloudLink(cloud.grpc, tls=True, api_key=cloud.key, info_timeout_s=3)
    with pytest.raises(TransportError):
        await link.info()
    await link.close()


def test_beyond_loopback_the_server_refuses_plaintext() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pd_server", "--host=0.0.0.0", "--grpc-port=0", "--http-port=0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "--insecure" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_drains_and_exits_in_order(cloud: _Cloud) -> None:
    # The last test of this module: it ends the server that the others used.
    cloud.process.send_signal(signal.SIGTERM)
    assert cloud.process.wait(60) == 0
