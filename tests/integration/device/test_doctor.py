"""`pd-device doctor`: every check finds what is wrong and says how to mend it."""

from dataclasses import replace
from pathlib import Path

import pytest

from pd_core.errors import CloudUnavailable, ConfigError
from pd_core.generation import Fingerprints, ServerInfo
from pd_core.grammar.library import library_id
from pd_core.sockets.listening import bind
from pd_core.store.model_names import DEFAULT_MODEL, RANDOM_TINY
from pd_device_client.api.http.door import Door
from pd_device_client.cli import main
from pd_device_client.commands import examination as doctor
from pd_device_client.commands.examination import Finding, _load, examine
from pd_device_client.contract.ports import CloudLink
from pd_device_client.device.battery import Battery, BatteryPolicy
from pd_device_client.device.manners import Manners
from tests.command_here import run_here
from tests.scripted_cloud import ScriptedCloud


class _Cloud(ScriptedCloud):
    def __init__(self, fingerprints: Fingerprints | None) -> None:
        super().__init__()
        self._fingerprints = fingerprints
        self.grammar_library = ""

    async def info(self) -> ServerInfo:
        if self._fingerprints is None:
            raise CloudUnavailable("nobody listens there")
        info = await super().info()
        card = replace(info.model, fingerprints=self._fingerprints)
        return replace(info, model=replace(card, grammar_library=self.grammar_library))


async def _examine(
    model: str = RANDOM_TINY, link: CloudLink | None = None, port: int = 0, now_unix_s: int = 2**31
) -> dict[str, Finding]:
    found = await examine(
        model, lambda: link, Door("127.0.0.1", port), clock=lambda: now_unix_s,
        battery=lambda: Battery(50, plugged=False),
    )  # fmt: skip
    return {finding.subject: finding for finding in found}


async def test_all_is_well() -> None:
    found = await _examine(DEFAULT_MODEL, _Cloud(Fingerprints()))
    assert [name for name, finding in found.items() if not finding.ok] == []
    assert "a context of 2048 tokens" in found["model"].words
    assert "scripted on scripted" in found["cloud"].words
    assert "50 %, not plugged in" in found["battery"].words
    assert "all stays on this machine" in (await _examine())["cloud"].words


async def test_who_compiles_forms_is_told() -> None:
    here = library_id()
    found = await _examine(DEFAULT_MODEL, _Cloud(Fingerprints()))
    assert here in found["forms"].words
    assert "forms by nothing (so this device alone answers to them)" in found["cloud"].words
    cloud = _Cloud(Fingerprints())
    cloud.grammar_library = here
    assert "forms" not in (await _examine(DEFAULT_MODEL, cloud))["cloud"].words


async def test_what_is_wrong_is_named_with_its_mend() -> None:
    listener = bind("127.0.0.1", 0, "--port")
    port = listener.getsockname()[1]
    found = await _examine("no/such/folder", _Cloud(None), port, now_unix_s=0)
    listener.close()
    good = {name for name, finding in found.items() if finding.ok}
    assert good == {"battery", "cores", "access", "forms", "load"}
    assert "set the date" in found["clock"].words
    assert "give --port another" in found["port"].words
    assert "there is no directory 'no/such/folder'" in found["model"].words
    assert "the device would answer alone" in found["cloud"].words


async def test_it_says_to_what_the_engine_gives_way() -> None:
    def words(others: float) -> str:
        policy = BatteryPolicy()
        manners = Manners(2, 2, policy, lambda: 0.0, others=lambda: others, battery=lambda: None)
        return _load(manners).words

    assert words(0.0) == "nothing else wants the cores: at most 2 threads (--polite)"
    assert "other programs keep cores busy" in words(1.4)
    assert "at most 1 threads" in words(1.4)
    assert "--no-polite" in _load(None).words


@pytest.mark.parametrize("field", ["tokenizer", "weights"])
async def test_another_model_in_the_cloud_is_found_before_anything_is_loaded(field: str) -> None:
    found = await _examine(DEFAULT_MODEL, _Cloud(Fingerprints(**{field: "x"})))
    assert not found["cloud"].ok
    assert f"whose {field} differ" in found["cloud"].words


async def test_a_way_out_that_cannot_be_made_is_a_finding_beside_the_others() -> None:
    def way_out() -> CloudLink | None:
        raise ConfigError("--tls-ca x cannot be read")

    found = await examine(RANDOM_TINY, way_out, Door("127.0.0.1", 0))
    assert {finding.subject for finding in found if not finding.ok} == {"cloud"}
    assert found[-1].words == "--tls-ca x cannot be read; the device would not start"


def test_the_command_ends_with_one_when_something_is_wrong() -> None:
    command = ("doctor", "--port", "0", "--model")
    for model, code, words in ((RANDOM_TINY, 0, "ok   model"), ("no/folder", 1, "BAD  model")):
        done = run_here(main, *command, model)
        assert done.returncode == code, done.stderr
        assert words in done.stdout


@pytest.mark.parametrize(
    ("host", "key", "insecure", "ok", "words"),
    [
        ("127.0.0.1", None, False, True, "this machine alone, without a key"),
        ("localhost", "k", False, True, "this machine alone, with the clients' key"),
        ("0.0.0.0", None, False, False, "give a key that clients must send"),
        ("0.0.0.0", "k", False, True, "every machine that reaches it, with the clients' key"),
        ("::", None, True, True, "every machine that reaches it, without a key"),
    ],
)
async def test_who_could_use_the_device_is_said(
    host: str, key: str | None, insecure: bool, ok: bool, words: str
) -> None:
    door = Door(host, 0, client_key=key, insecure=insecure)
    found = {f.subject: f for f in await examine(RANDOM_TINY, lambda: None, door)}
    assert found["access"].ok is ok
    assert words in found["access"].words


async def test_a_key_file_that_others_can_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Path("mine.key"), Path("all.key")
    monkeypatch.setattr(doctor, "key_exposure", lambda path: "chmod it" if path is keys[1] else "")
    for files, ok, words in ((keys[:1], True, "only their owner"), (keys, False, "chmod it")):
        found = await examine(RANDOM_TINY, lambda: None, Door("127.0.0.1", 0), files)
        assert [(f.ok, words in f.words) for f in found if f.subject == "keys"] == [(ok, True)]


def test_a_host_of_the_settings_file_without_a_key_is_what_doctor_looks_at(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('model = "random-tiny"\n[serve]\nhost = "0.0.0.0"\nport = 0\n')
    done = run_here(main, "doctor", "--config", str(config))
    assert done.returncode == 1
    assert "BAD  access   --host 0.0.0.0 lets other machines use this device" in done.stdout


async def test_what_serve_would_keep_in_memory_counts() -> None:
    huge = 1 << 50
    found = await examine(DEFAULT_MODEL, lambda: None, Door("127.0.0.1", 0), kept_kv_bytes=huge)
    (model,) = [finding for finding in found if finding.subject == "model"]
    assert not model.ok
    assert "lower --kept-kv-mib" in model.words
