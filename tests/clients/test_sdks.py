"""The clients that people have, against `pd-device serve`, with handoffs at three positions.

Each client's script runs in the environment `.venv-sdk` (`make clients-env`) and tries each feature
at three devices, which take over from one cloud after few, more and many tokens. A feature works
if the client gets what it asked for, and the same from all three.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pd_core.errors import PdError
from pd_core.store.model_names import model_path
from tests.real_device import RealDevice, real_device
from tests.real_server import real_server

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "sdk"
PYTHON = Path(os.environ.get("CLIENTS_PYTHON", ROOT / ".venv-sdk/bin/python"))
WANTED, SHIPPED = "smollm2-135m", "skipv1-python-5m"
CLOUD_TOKENS = (1, 4, 9)
CLIENTS = {
    "openai": "try_openai.py",
    "anthropic": "try_anthropic.py",
    "litellm": "try_litellm.py",
    "langchain-openai": "try_langchain.py",
    "instructor": "try_instructor.py",
    "pydantic-ai": "try_pydantic_ai.py",
    "openai-agents": "try_openai_agents.py",
    "llm": "try_llm.py",
}
# No client may ask anyone else.
ALONE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1"}


@dataclass
class Tried:
    """What became of one feature at all devices."""

    feature: str
    answers: list[str]
    error: str | None

    @property
    def problem(self) -> str | None:
        """Why it does not work; None if it does."""
        if self.error is not None:
            return self.error
        if len(set(self.answers)) != 1:
            return f"the answers differ with the handoff's position: {self.answers}"
        return None if self.answers[0] else "the answer is empty"


@dataclass
class Clouded:
    """One model at several devices, each of which takes over at another position."""

    model: str
    devices: list[RealDevice]
    rows: dict[str, list[Tried]] = field(default_factory=dict)

    def handoffs(self) -> list[list[int | None]]:
        """Return the handoff positions of each device's answers so far."""
        found = []
        for device in self.devices:
            lines = (device.log.parent / "answers.jsonl").read_text().splitlines()
            found.append([json.loads(line)["handoff_position"] for line in lines])
        return found


@pytest.fixture(scope="module")
def model() -> str:
    """A real model that chats, if it was pulled; else the one in the box."""
    try:
        model_path(WANTED)
    except PdError:
        return SHIPPED
    return WANTED


@pytest.fixture(scope="module")
def clouded(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouded]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("cloud")
        cloud = stack.enter_context(real_server(folder, "--model", model, ready_within_s=200))
        devices = []
        for k in CLOUD_TOKENS:
            folder = tmp_path_factory.mktemp(f"device-{k}")
            options = ["--cloud", cloud.address, "--model", model]
            # So slow, and without an earlier prompt in memory, that it begins behind the cloud.
            options += ["--throttle", "phone", "--pace", "0.1", "--kept-kv-mib", "0"]
            options += ["--cloud-tokens-per-request", str(k)]
            options += ["--answer-log", str(folder / "answers.jsonl")]
            devices.append(stack.enter_context(real_device(folder, *options, ready_within_s=200)))
        every = Clouded(model, devices)
        yield every
        tell(every)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gets_what_it_asks_for_wherever_the_handoff_is(
    clouded: Clouded, client: str
) -> None:
    before = [len(positions) for positions in clouded.handoffs()]
    tried = clouded.rows[client] = run(client, clouded)
    assert tried
    problems = {one.feature: one.problem for one in tried if one.problem}
    assert not problems, "\n".join(f"{name}: {why}" for name, why in problems.items())
    for k, begun, positions in zip(CLOUD_TOKENS, before, clouded.handoffs(), strict=True):
        here = [at for at in positions[begun:] if at is not None]
        # A cloud that has much to do may come too late for some of them.
        assert max(here, default=0) == k, f"none was handed over at {k}: {positions[begun:]}"


def run(client: str, clouded: Clouded) -> list[Tried]:
    """Run a client's script at all devices."""
    assert PYTHON.exists(), f"{PYTHON} is not there; run make clients-env"
    urls = [device.url for device in clouded.devices]
    command = [str(PYTHON), CLIENTS[client], clouded.model, *urls]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=environment(), cwd=SCRIPTS
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return [Tried(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]


def environment() -> dict[str, str]:
    """Return what a client may know: no keys, and not this project's packages."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | ALONE


def tell(clouded: Clouded) -> None:
    """Print the table that stands in the documentation."""
    features = list(dict.fromkeys(one.feature for row in clouded.rows.values() for one in row))
    lines = [
        f"| {clouded.model} | " + " | ".join(features) + " |",
        "|---" * (1 + len(features)) + "|",
    ]
    for client, row in clouded.rows.items():
        found = {one.feature: "no" if one.problem else "yes" for one in row}
        lines.append(f"| {client} | " + " | ".join(found.get(f, "") for f in features) + " |")
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
