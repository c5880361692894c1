"""The checks of `pd-device doctor`: what would keep this device from serving."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.loading import read_fingerprints
from pd_core.checkpoints.memory_need import check_memory, memory_need
from pd_core.errors import PdError
from pd_core.files.api_key import key_exposure
from pd_core.generation import ModelCard
from pd_core.grammar.library import library_id
from pd_core.host.cpu import cores_in_words
from pd_core.host.free_memory import available_bytes
from pd_core.host.wall_clock import unix_time_s
from pd_core.needs import Need
from pd_core.process.loading_thread import in_loading_thread
from pd_core.sockets.listening import bind
from pd_core.sockets.loopback import is_loopback
from pd_core.store.model_names import RANDOM_TINY
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.api.http.door import Door
from pd_device_client.contract.ports import CloudLink, NeedsModel
from pd_device_client.device.battery import Battery, read_battery
from pd_device_client.device.manners import GivesWay, Manners
from pd_device_client.engine.gguf_text import gguf_path, read_gguf_text
from pd_device_client.engine.llama_cpp_library import library

__all__ = ["Finding", "examine"]

# The start of 2026, when this was written: an earlier clock is wrong.
_EARLIEST_UNIX_S = 1_767_225_600
_COMPARED = ("tokenizer", "chat_template", "weights")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        subject: what was checked.
        ok: whether it is as it should be.
        words: what was found and, if not ok, how to mend it.
    """

    subject: str
    ok: bool
    words: str


@dataclass(frozen=True, slots=True)
class _Ours:
    """What would run here, as far as a cloud is compared with it."""

    card: ModelCard
    tokenizer: Tokenizer


async def examine(
    model: str,
    way_out: Callable[[], CloudLink | None],
    door: Door,
    key_files: Sequence[Path] = (),
    *,
    engine: str = "torch",
    kept_kv_bytes: int = 0,
    numerics: str = "auto",
    fast: bool = False,
    manners: Manners | None = None,
    clock: Callable[[], int] = unix_time_s,
    battery: Callable[[], Battery | None] = read_battery,
) -> list[Finding]:
    """Check clock, cores, battery, port, access, key files, model and cloud; change nothing.

    Args:
        model: as `load_model` takes it.
        way_out: makes the cloud link, or None; the link is closed at the end.
        door: where the device will listen.
        key_files: files that only their owner should be able to read.
        engine: what would run the model.
        kept_kv_bytes: KV cache that would be kept for finished answers.
        numerics: in which the model would be computed.
        fast: without bit-equality.
        manners: made some time ago, so that it knows the load; None: the device gives way to none.
        clock: seconds since 1970.
        battery: reads the battery.
    """
    ours: _Ours | None = None
    findings = [_clock(clock()), _battery(battery()), _port(door), _access(door)]
    findings.insert(1, Finding("cores", True, cores_in_words()))
    if key_files:
        findings.append(_keys(key_files))
    try:
        if engine == "llama-cpp":
            words, ours = await in_loading_thread(lambda: _gguf(model))
        else:
            words, ours = await in_loading_thread(
                lambda: _model(model, kept_kv_bytes, numerics, fast=fast)
            )
        findings.append(Finding("model", True, words))
    except PdError as error:
        findings.append(Finding("model", False, str(error)))
    findings += [_forms(), _load(manners)]
    findings.append(await _cloud(way_out, ours))
    return findings


def _clock(now_unix_s: int) -> Finding:
    if now_unix_s < _EARLIEST_UNIX_S:
        words = "it is years behind, so certificates look not yet valid; set the date"
        return Finding("clock", False, words)
    return Finding("clock", True, "the date is plausible")


def _battery(battery: Battery | None) -> Finding:
    if battery is None:
        return Finding("battery", True, "there is none, or it cannot be read")
    words = {
        True: "plugged in",
        False: "not plugged in: see --spare-below",
        None: "and the system does not say whether it is plugged in: it is taken to be",
    }
    return Finding("battery", True, f"{battery.percent:.0f} %, {words[battery.plugged]}")


def _forms() -> Finding:
    """Report what holds answers to a form; without it every other answer is given."""
    words = library_id() or "none: pip install 'pd-device[device]' adds llguidance"
    return Finding("forms", True, f"schemas and grammars are compiled with {words}")


def _load(manners: Manners | None) -> Finding:
    if manners is None:
        return Finding("load", True, "the engine gives way to nothing (--no-polite)")
    threads = manners.most_threads()
    words = {
        GivesWay.NOTHING: "nothing else wants the cores",
        GivesWay.PROGRAMS: "other programs keep cores busy, to which the engine gives way",
        GivesWay.BATTERY: "the battery is low, so the engine is spared",
    }[manners.gives_way]
    return Finding("load", True, f"{words}: at most {threads} threads (--polite)")


def _port(door: Door) -> Finding:
    try:
        bind(door.host, door.port, "--port").close()
    except PdError as error:
        return Finding("port", False, str(error))
    return Finding("port", True, f"{door.port} on {door.host} is free")


def _access(door: Door) -> Finding:
    """Report who could use the device; `serve` refuses what fails here."""
    try:
        key = door.key()
    except PdError as error:
        return Finding("access", False, f"{error}; the device would not start")
    who = "this machine alone" if is_loopback(door.host) else "every machine that reaches it"
    if key is not None:
        return Finding("access", True, f"{who}, with the clients' key")
    return Finding("access", True, f"{who}, without a key")


def _keys(files: Sequence[Path]) -> Finding:
    exposed = [words for words in map(key_exposure, files) if words]
    return Finding("keys", not exposed, "; ".join(exposed) or "only their owner can read the files")


def _model(
    model: str, kept_kv_bytes: int, numerics: str, *, fast: bool
) -> tuple[str, _Ours | None]:
    files = check_memory(model, kept_kv_bytes, numerics, fast=fast)
    free = f"{available_bytes() >> 20} MiB of memory are free"
    if files is None:
        return f"{RANDOM_TINY} is made on the spot; {free}", None
    report = inspect_model(model, files=files)
    if files.chat_template is not None:
        files.chat_template.check()
    card = ModelCard(
        name=report.name,
        engine="torch",
        fingerprints=read_fingerprints(files, ""),
        vocab_size=files.tokenizer.vocab_size,
        eos_token_ids=files.eos_token_ids,
        max_context_tokens=report.config.max_context_tokens,
    )
    need = memory_need(files, numerics, fast=fast)
    return (
        f"{report.name}: {report.num_parameters:,} parameters, computed as {need.numerics}, "
        f"{need.total(kept_kv_bytes) >> 20} MiB of memory at most, a context of "
        f"{report.config.max_context_tokens} tokens; {free}",
        _Ours(card, files.tokenizer),
    )


def _gguf(model: str) -> tuple[str, _Ours]:
    """Examine what llama.cpp would run, without loading its weights."""
    library()
    path = gguf_path(model)
    text = read_gguf_text(path)
    if text.chat_template is not None:
        text.chat_template.check()
    size = f"{path.stat().st_size >> 20} MiB in {path}"
    free = f"{available_bytes() >> 20} MiB of memory are free"
    card = ModelCard(
        name=text.name,
        engine="llama-cpp",
        fingerprints=text.fingerprints,
        vocab_size=text.tokenizer.vocab_size,
        eos_token_ids=text.eos_token_ids,
        max_context_tokens=0,  # known once it is loaded
    )
    return f"{text.name}, run by llama.cpp: {size}; {free}", _Ours(card, text.tokenizer)


async def _cloud(way_out: Callable[[], CloudLink | None], ours: _Ours | None) -> Finding:
    try:
        link = way_out()
    except PdError as error:
        return Finding("cloud", False, f"{error}; the device would not start")
    if link is None:
        return Finding("cloud", True, "none is given, so all stays on this machine")
    if ours is not None and isinstance(link, NeedsModel):
        link.use_model(ours.card, ours.tokenizer)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        card = await link.info()
    except PdError as error:
        return Finding("cloud", False, f"{error}; the device would answer alone")
    finally:
        await link.close()
    took_ms = (loop.time() - began_s) * 1e3
    other = [
        name.replace("_", " ")
        for name in _COMPARED
        if ours is not None
        and getattr(ours.card.fingerprints, name) != getattr(card.model.fingerprints, name)
        and getattr(card.model.fingerprints, name)
    ]
    if other:
        words = (
            f"it runs {card.model.name}, whose {' and '.join(other)} differ from this device's, so "
            "nothing can be handed over; run the same model on both sides (--model)"
        )
        return Finding("cloud", False, words)
    load, name = card.load, f"{card.model.name} on {card.model.engine}"
    told = f"{load.num_running} of {load.max_num_seqs} slots in use"
    theirs = card.model.grammar_library
    if theirs != library_id() and Need.FORM not in card.lacks:
        told += f", forms by {theirs or 'nothing'} (so this device alone answers to them)"
    if card.abilities:  # no pd-server, so it is not known how busy it is
        told = "; ".join((*card.abilities, f"an answer of both is {card.exactness} at most"))
        told += f"; not asked for {', '.join(need for need in Need if need in card.lacks)}"
    return Finding("cloud", True, f"{name}, {told}, card in {took_ms:.0f} ms")
