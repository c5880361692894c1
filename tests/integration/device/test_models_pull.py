"""Pulling models: a real client against a hub on this machine, and everything that goes wrong."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pd_core.checkpoints.loading import load_model
from pd_core.errors import ConfigError, HubUnavailable, ModelError, PdError
from pd_core.store.manifest import read_manifest
from pd_core.store.model_names import DEFAULT_MODEL, model_directory
from pd_core.store.model_store import (
    MANIFEST,
    PulledName,
    find_pulled,
    partial_folder,
    pulled_folder,
    pulled_names,
)
from pd_device_client.cli import main
from pd_device_client.hub import model_pull
from pd_device_client.hub.model_hub import ModelHub
from pd_device_client.hub.model_pull import pull
from pd_device_client.hub.pulled_models import differences, sole_use
from tests.command_here import run_here
from tests.hub_server import HubModel, HubServer, hub_server

pytestmark = pytest.mark.heavy

NAME = PulledName("someone", "python-5m")
WEIGHTS = "model.safetensors"
SHIPPED = {
    **{p.name: p.read_bytes() for p in model_directory(DEFAULT_MODEL).iterdir()},
    "special_tokens_map.json": b'{"bos_token": "<bos>"}',
}
UNWANTED = {
    "pytorch_model.bin": b"\x80\x04",
    "original/params.json": b"{}",
    "modeling.py": b"import os",
    ".gitattributes": b"",
    MANIFEST: b"{}",
}


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PD_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as running:
        running.models[f"{NAME.repo}@main"] = HubModel("1" * 40, {**SHIPPED, **UNWANTED})
        yield running


def silent(*_: object) -> None:
    """Progress for who does not look."""


def get(
    hub: HubServer, name: PulledName = NAME, progress: model_pull.Progress = silent, token: str = ""
) -> bool:
    return pull(ModelHub(hub.url, token or None, wait_s=0.0), name, progress)[1]


def test_a_pulled_model_is_what_the_hub_has_and_runs_by_its_name(hub: HubServer) -> None:
    seen: list[tuple[str, int, int]] = []
    assert get(hub, progress=lambda *what: seen.append(what))
    folder = find_pulled(NAME)
    assert folder is not None
    kept = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != MANIFEST}
    assert kept == {n: c for n, c in SHIPPED.items() if not n.endswith(".md")}
    manifest = read_manifest(NAME)
    assert manifest.commit == "1" * 40
    assert manifest.files[WEIGHTS].sha256 == hashlib.sha256(SHIPPED[WEIGHTS]).hexdigest()
    pulled = load_model(str(NAME))
    assert pulled.name == NAME.model
    assert pulled.fingerprints == load_model(DEFAULT_MODEL).fingerprints
    assert ("checking", manifest.size_bytes, manifest.size_bytes) == seen[-1]
    assert not get(hub), "it is up to date"


def test_a_pull_that_was_interrupted_goes_on_where_it_stopped(hub: HubServer) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "pulling" and total > 10 << 20 and done > 5 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(hub, progress=interrupt)
    assert find_pulled(NAME) is None
    assert list(pulled_names()) == []
    assert list(pulled_names(partial=True)) == [NAME]
    assert get(hub)
    first, second = hub.asked_for(WEIGHTS)
    assert first == "bytes=0-"
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 4 << 20
    assert differences(NAME, silent) == []
    assert list(pulled_names(partial=True)) == []


def test_an_answer_that_breaks_off_is_asked_for_again(hub: HubServer) -> None:
    hub.cut_after[WEIGHTS] = 3 << 20
    assert get(hub)
    assert hub.asked_for(WEIGHTS) == ["bytes=0-", f"bytes={3 << 20}-"]
    assert differences(NAME, silent) == []


def test_a_hub_without_ranges_sends_all_of_it_again(hub: HubServer) -> None:
    hub.no_ranges = True
    hub.cut_after[WEIGHTS] = 3 << 20
    assert get(hub)
    assert differences(NAME, silent) == []


def test_a_process_that_was_killed_loses_nothing(hub: HubServer) -> None:
    hub.stall_after[WEIGHTS] = 6 << 20
    command = [sys.executable, "-m", "pd_device_client", "models", "pull", str(NAME)]
    process = subprocess.Popen(command, env={**os.environ, "HF_ENDPOINT": hub.url})
    try:
        deadline = time.monotonic() + 60
        while (there := _arrived(".arrived")) < 5 << 20:
            assert time.monotonic() < deadline, "nothing arrives"
            time.sleep(0.05)
        with pytest.raises(ConfigError, match="another process is pulling"):
            get(hub)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        hub.stall_after.clear()
    assert find_pulled(NAME) is None
    assert get(hub)
    again = hub.asked_for(WEIGHTS)[-1]
    assert again is not None
    assert int(again.removeprefix("bytes=").removesuffix("-")) >= there
    assert differences(NAME, silent) == []


def _arrived(suffix: str) -> int:
    folder = partial_folder(NAME)
    files = folder.glob(f"*{suffix}") if folder.is_dir() else ()
    return max((path.stat().st_size for path in files), default=0)


def test_other_bytes_than_announced_are_thrown_away(hub: HubServer) -> None:
    for name in ("generation_config.json", WEIGHTS):  # by git's digest, and by sha256
        hub.other_bytes = {name}
        with pytest.raises(ModelError, match=f"{name} is not what the hub announced"):
            get(hub)
        assert find_pulled(NAME) is None
    hub.other_bytes = set()
    assert get(hub), "and the next pull is not spoilt by them"


def test_a_newer_commit_replaces_the_model_and_brings_only_what_changed(hub: HubServer) -> None:
    assert get(hub)
    newer = {**SHIPPED, "generation_config.json": b"{}"}
    hub.models[f"{NAME.repo}@main"] = HubModel("2" * 40, newer)
    hub.asked.clear()
    assert get(hub)
    assert read_manifest(NAME).commit == "2" * 40
    assert differences(NAME, silent) == []
    assert hub.asked_for(WEIGHTS) == []
    folder = find_pulled(NAME)
    assert folder is not None
    assert (folder / "generation_config.json").read_bytes() == b"{}"


def test_damaged_weights_are_not_taken_over_by_the_next_commit(hub: HubServer) -> None:
    assert get(hub)
    folder = find_pulled(NAME)
    assert folder is not None
    damaged = bytes([SHIPPED[WEIGHTS][0] ^ 1]) + SHIPPED[WEIGHTS][1:]
    (folder / WEIGHTS).write_bytes(damaged)
    assert differences(NAME, silent) == [f"{WEIGHTS} has other bytes than those that were pulled"]
    hub.models[f"{NAME.repo}@main"].commit = "2" * 40
    assert get(hub)
    assert differences(NAME, silent) == []


def test_revisions_are_kept_beside_each_other(hub: HubServer) -> None:
    name = PulledName(NAME.owner, NAME.model, "refs/pr/1")
    hub.models[f"{NAME.repo}@refs/pr/1"] = HubModel("3" * 40, SHIPPED)
    assert get(hub)
    assert get(hub, name)
    assert list(pulled_names()) == sorted([NAME, name])
    assert read_manifest(name).commit == "3" * 40


def test_shards_are_those_of_the_index(hub: HubServer) -> None:
    files = {n: c for n, c in SHIPPED.items() if n != WEIGHTS}
    shard = "model-00001-of-00001.safetensors"
    files |= {shard: SHIPPED[WEIGHTS], "other.safetensors": b"x"}
    index = {"weight_map": {"model.embed_tokens.weight": shard}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.models[f"{NAME.repo}@main"].files = files
    assert get(hub)
    assert shard in read_manifest(NAME).files
    assert "other.safetensors" not in read_manifest(NAME).files
    assert load_model(str(NAME)).fingerprints == load_model(DEFAULT_MODEL).fingerprints


def _without(*names: str) -> dict[str, bytes]:
    return {name: content for name, content in SHIPPED.items() if name not in names}


def _index(shard: str) -> dict[str, bytes]:
    index = json.dumps({"weight_map": {"x": shard}}).encode()
    return _without(WEIGHTS) | {"model.safetensors.index.json": index}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (_without(WEIGHTS) | {"pytorch_model.bin": b"x"}, "no safetensors weights"),
        (_without("tokenizer.json"), "no tokenizer.json"),
        (_without("config.json", "tokenizer.json"), "no config.json and no tokenizer.json"),
        (_index("../../evil.safetensors"), "is no safetensors file"),
        (_index("weights.bin"), "is no safetensors file"),
        (_index("gone.safetensors"), "which the hub does not have"),
        (
            SHIPPED | {"config.json": b'{"architectures": ["GPT2LMHeadModel"]}'},
            "cannot be run here",
        ),
        (SHIPPED | {"config.json": b"<html>"}, "cannot be run here"),
    ],
)
def test_what_cannot_be_run_is_refused_before_its_weights_are_fetched(
    hub: HubServer, files: dict[str, bytes], words: str
) -> None:
    hub.models[f"{NAME.repo}@main"].files = files
    with pytest.raises(ModelError, match=words):
        get(hub)
    assert not any(path.endswith((".safetensors", ".bin")) for path, _ in hub.asked)
    assert find_pulled(NAME) is None


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        ("no/such", ModelError, "has no model no/such, or it is private"),
        (f"{NAME.repo}@v9", ModelError, "has no revision 'v9'"),
    ],
)
def test_what_the_hub_does_not_have_is_said(
    hub: HubServer, spec: str, kind: type[PdError], words: str
) -> None:
    name = PulledName.parse(spec)
    assert name is not None
    with pytest.raises(kind, match=words):
        get(hub, name)
    assert list(pulled_names(partial=True)) == []


def test_a_gated_model_wants_a_token(hub: HubServer) -> None:
    hub.models[f"{NAME.repo}@main"].gated = True
    with pytest.raises(ModelError, match=r"is gated: accept its terms on .*--token-file"):
        get(hub)
    with pytest.raises(ModelError, match=r"refuses the token .*status 401"):
        get(hub, token="hf_wrong")
    assert get(hub, token="hf_right")


def test_a_hub_that_is_not_there_is_said() -> None:
    with pytest.raises(HubUnavailable, match="cannot be reached"):
        pull(ModelHub("http://127.0.0.1:1", wait_s=0.0), NAME, silent)
    assert list(pulled_names(partial=True)) == []


def test_a_full_disk_is_said_before_and_while_it_fills(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")._replace(free=1 << 20)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(ModelError, match="MiB more on the disk"):
            get(hub)
    assert hub.asked_for(WEIGHTS) == []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, limits[1]))
    try:
        with pytest.raises(ModelError, match="cannot be written"):
            get(hub)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert find_pulled(NAME) is None
    assert get(hub)
    assert hub.asked_for(WEIGHTS)[-1] == f"bytes={4 << 20}-"
    assert differences(NAME, silent) == []


def test_only_one_process_pulls_a_model(hub: HubServer) -> None:
    with sole_use(NAME), pytest.raises(ConfigError, match="another process is pulling"):
        get(hub)


def test_a_folder_that_cannot_be_used_is_said(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PD_MODELS_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="PD_MODELS_DIR"):
        get(hub)


# The commands, each as a user runs it


@pytest.fixture
def run(hub: HubServer) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def command(
        *words: str, stdin: str = "", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pd_device_client", *words],
            env={**os.environ, "HF_ENDPOINT": hub.url, **environment},
            input=stdin, capture_output=True, text=True, timeout=90,
        )  # fmt: skip

    return command


def test_the_commands_from_pull_to_remove(
    run: Callable[..., "subprocess.CompletedProcess[str]"], hub: HubServer, tmp_path: Path
) -> None:
    hub.models[f"{NAME.repo}@main"].gated = True
    token = tmp_path / "token"
    token.write_text("hf_right\n")
    token.chmod(0o600)
    done = run("models", "pull", str(NAME), "--token-file", str(token))
    assert done.returncode == 0, done.stderr
    assert "someone/python-5m is here: " in done.stdout
    assert done.stderr == "", "no progress where nobody watches"
    listed = run("models", "list").stdout
    assert "someone/python-5m" in listed
    assert DEFAULT_MODEL in listed
    chat = ("chat", "import json", "--max-tokens", "4", "--pace", "0.01", "--seed", "1")
    shipped = run_here(main, *chat)
    assert run_here(main, *chat, "--model", str(NAME)).stdout == shipped.stdout != ""
    assert run("models", "verify").stdout == "ok   someone/python-5m\n"
    refused = run("models", "remove", str(NAME))
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert run("models", "remove", str(NAME), "--yes").returncode == 0
    gone = run_here(main, "chat", "import json", "--model", str(NAME))
    assert gone.returncode == 2
    assert "pd-device models pull someone/python-5m" in gone.stderr


def test_a_hub_on_this_machine_is_asked_without_a_proxy(hub: HubServer) -> None:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "pd_device_client", "models", "pull", str(NAME)],
        env={**os.environ, **proxies, "HF_ENDPOINT": hub.url},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert find_pulled(NAME) is not None


def test_verify_finds_damage_and_the_exit_code_says_so(
    run: Callable[..., "subprocess.CompletedProcess[str]"], hub: HubServer
) -> None:
    get(hub)
    folder = find_pulled(NAME)
    assert folder is not None
    (folder / "config.json").unlink()
    (folder / "tokenizer.json").write_bytes(b"{}")
    done = run("models", "verify", str(NAME))
    assert done.returncode == 1
    assert "config.json is missing" in done.stdout
    assert "tokenizer.json has 2 bytes instead of" in done.stdout
    assert "pd-device models pull someone/python-5m" in done.stdout


@pytest.mark.parametrize("damaged", [WEIGHTS, "config.json", MANIFEST])
def test_a_pull_mends_a_damaged_model_of_the_same_commit(hub: HubServer, damaged: str) -> None:
    assert get(hub)
    file = pulled_folder(NAME) / damaged
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    assert get(hub), "it is not up to date"
    assert differences(NAME, silent) == []
    assert not get(hub), "now it is"


def test_a_pull_brings_a_missing_file_and_the_weights_only_once(hub: HubServer) -> None:
    assert get(hub)
    (pulled_folder(NAME) / "tokenizer.json").unlink()
    hub.asked.clear()
    assert get(hub)
    assert differences(NAME, silent) == []
    assert hub.asked_for(WEIGHTS) == []


def test_a_model_with_a_damaged_manifest_hides_no_other(
    run: Callable[..., "subprocess.CompletedProcess[str]"], hub: HubServer
) -> None:
    hub.models["someone/another@main"] = HubModel("2" * 40, SHIPPED)
    get(hub, PulledName("someone", "another"))
    get(hub)
    (pulled_folder(PulledName("someone", "another")) / MANIFEST).write_text("{")
    listed = run("models", "list")
    assert listed.returncode == 0, listed.stderr
    assert "damaged: pull it again" in listed.stdout
    assert "1" * 12 in listed.stdout
    checked = run("models", "verify")
    assert checked.returncode == 1
    assert "BAD  someone/another" in checked.stdout
    assert "ok   someone/python-5m" in checked.stdout
    assert run("models", "remove", "someone/another", "--yes").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("pull", "gpt2"), 2, "give OWNER/MODEL or OWNER/MODEL@REVISION"),
        (("pull", "someone/python-5m", "--token-file", "no-such"), 2, "no-such"),
        (("verify", "no/such"), 2, "pd-device models pull no/such"),
        (("remove", "no/such", "--yes"), 2, "there is no model no/such"),
    ],
)
def test_a_wrong_command_is_one_clear_line(words: tuple[str, ...], code: int, said: str) -> None:
    check_one_line(run_here(main, "models", *words), code, said)


def test_where_all_is_to_stay_offline_nothing_is_pulled(
    run: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    # The variable is read when the hub's library is imported, so in a process of its own.
    done = run("models", "pull", "someone/python-5m", HF_HUB_OFFLINE="1")
    check_one_line(done, 69, "stay offline")


def check_one_line(done: "subprocess.CompletedProcess[str]", code: int, said: str) -> None:
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
