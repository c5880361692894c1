"""The device side of a replay: one real device, or a fleet of emulated ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.shaped_link import ShapedCloudLink
from pd_bench.replay.dispatch import Client, Dispatcher
from pd_bench.replay.scheme_client import scheme_client
from pd_bench.replay.schemes import Scheme
from pd_bench.replay.settings import ReplaySettings
from pd_bench.replay.shared_clients import SharedClients
from pd_bench.replay.workload import Work
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError, FingerprintMismatch
from pd_core.files.text_file import read_text_file
from pd_core.generation import ServerInfo
from pd_device_client.client.handshake import shake_hands
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.egress import link_to
from pd_device_client.contract.ports import CloudLink, LocalEngine, NeedsModel
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.speeds.profiles import LinkProfile

__all__ = [
    "Devices",
    "FleetDevices",
    "RealDevice",
]

_KV_LABEL = "device KV bytes: computed from the model's KV bytes per token, not measured"


class Devices(Protocol):
    """The device side of one fidelity."""

    @property
    def arrivals(self) -> str:
        """How requests arrive: "sequential" or "trace"."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything emulated or throttled on this side, for the document."""
        ...

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache bytes per token on a device."""
        ...

    @property
    def max_context_tokens(self) -> int | None:
        """A device's limit of prompt and answer together; None: the server's."""
        ...

    @property
    def text_token_ids(self) -> tuple[int, ...]:
        """The text that prompts are pieces of; empty: ids are made up."""
        ...

    def link_to(self, cloud: CloudAddress) -> CloudLink:
        """Return a link to a server, which is told what it needs to know of these devices."""
        ...

    def check(self, info: ServerInfo) -> None:
        """Refuse a server with which these devices cannot share an answer.

        Raises:
            ConfigError: its sampler differs from the one that the fidelity needs.
            FingerprintMismatch: it does not run the devices' model.
        """
        ...

    async def run(
        self,
        scheme: Scheme,
        cloud: CloudAddress,
        info: ServerInfo,
        works: Sequence[Work],
        dispatcher: Dispatcher,
    ) -> None:
        """Send the requests from new devices, which keep nothing from earlier calls."""
        ...


class RealDevice:
    """One device with a real model in this process, possibly throttled; one request at a time."""

    arrivals = "sequential"

    def __init__(self, settings: ReplaySettings, num_threads: int | None) -> None:
        self._settings = settings
        self._num_threads = num_threads
        text = _text(settings.text)
        self._loaded = load_model(settings.model, numerics="auto")
        self.text_token_ids = tuple(self._loaded.tokenizer.encode(text)) if text else ()
        self.kv_bytes_per_token = _kv_bytes_per_token(self._loaded)
        self.max_context_tokens = self._loaded.model.config.max_context_tokens

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything emulated or throttled on this side."""
        speed = self._settings.speed
        name = self._loaded.name
        device = (
            f"device: real engine ({name}) at its own speed"
            if speed is None
            else f"device: real engine ({name}), throttled to {speed.name} ({speed.source})"
        )
        text = self._settings.text
        prompts = () if text is None else (f"prompts: pieces of {text.name}",)
        return device, *prompts, _link_label(self._settings.link), _KV_LABEL

    def link_to(self, cloud: CloudAddress) -> CloudLink:
        """Return a link, told of the model if it needs it."""
        link = link_to(cloud)
        if isinstance(link, NeedsModel):
            link.use_model(TorchLocalEngine(self._loaded).card, self._loaded.tokenizer)
        return link

    def check(self, info: ServerInfo) -> None:
        """Refuse a different sampler or model."""
        _check_sampler(info, self._settings)
        mismatch = shake_hands(TorchLocalEngine(self._loaded).card, info.model).mismatch
        if mismatch:
            raise FingerprintMismatch(f"{mismatch}: give --model what the server was started with")

    async def run(
        self,
        scheme: Scheme,
        cloud: CloudAddress,
        info: ServerInfo,
        works: Sequence[Work],
        dispatcher: Dispatcher,
    ) -> None:
        """Send one request after another through one client, which measures its speed first."""
        settings = self._settings
        client = scheme_client(
            scheme,
            link=lambda: _shaped(self.link_to(cloud), settings.link, settings.seed),
            engine=self._engine,
            pace_s=settings.pace_s,
        )
        try:
            await client.start()
            await dispatcher.run_sequential(works, client)
        finally:
            await client.close()

    def _engine(self) -> LocalEngine:
        engine = TorchLocalEngine(self._loaded, num_threads=self._num_threads)
        speed = self._settings.speed
        return engine if speed is None else ThrottledEngine(engine, speed)


class FleetDevices:
    """Emulated devices that only sleep as their profile says: one per row, or per session."""

    arrivals = "trace"
    max_context_tokens = None
    text_token_ids = ()

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self.kv_bytes_per_token = (
            0 if settings.cloud is not None else _kv_bytes_per_token(load_model(settings.model))
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything emulated or throttled on this side."""
        speed = self._settings.speed
        assert speed is not None, "settings refuse a fleet without a device profile"
        kv = (
            "device KV bytes: not known, since the server's model is not ours"
            if self._settings.cloud is not None
            else _KV_LABEL
        )
        return (
            f"devices: emulated, {speed.name} ({speed.source}); every row is another device, "
            "but for the turns of a conversation",
            "sampler: rolling hash of the prefix on both sides: checks tokens, makes no text",
            _link_label(self._settings.link),
            kv,
        )

    def link_to(self, cloud: CloudAddress) -> CloudLink:
        """Return a link."""
        return link_to(cloud)

    def check(self, info: ServerInfo) -> None:
        """Refuse a different sampler; emulated devices have no weights to compare."""
        _check_sampler(info, self._settings)

    async def run(
        self,
        scheme: Scheme,
        cloud: CloudAddress,
        info: ServerInfo,
        works: Sequence[Work],
        dispatcher: Dispatcher,
    ) -> None:
        """Send each request at its row's arrival, from its own device or its session's."""
        clients = SharedClients(works, lambda work: self._client(scheme, cloud, info, work))
        try:
            await dispatcher.run_open_loop(works, clients.client_of)
        finally:
            await clients.close()

    def _client(self, scheme: Scheme, cloud: CloudAddress, info: ServerInfo, work: Work) -> Client:
        settings, speed = self._settings, self._settings.speed
        assert speed is not None, "settings refuse a fleet without a device profile"
        # Every device has its own spread and jitter, which are the same in every scheme.
        seed = settings.seed * 1_000_003 + work.line
        return scheme_client(
            scheme,
            link=lambda: _shaped(self.link_to(cloud), settings.link, seed),
            engine=lambda: EmulatedDeviceEngine(
                speed,
                vocab_size=info.model.vocab_size,
                eos_token_ids=info.model.eos_token_ids,
                seed=seed,
                max_context_tokens=info.model.max_context_tokens,
                fingerprints=info.model.fingerprints,
            ),
            pace_s=settings.pace_s,
            device_profile=speed,
        )


def _check_sampler(info: ServerInfo, settings: ReplaySettings) -> None:
    if info.model.sampler != settings.sampler:
        raise ConfigError(
            f"the server samples by {info.model.sampler!r}, and fidelity {settings.fidelity!r} "
            f"needs {settings.sampler!r}: start it with --sampler {settings.sampler}"
        )


def _kv_bytes_per_token(loaded: LoadedModel) -> int:
    """Return the KV cache bytes per token of a model, as allocated."""
    block = loaded.model.make_cache(1)
    return block.allocated_bytes // block.capacity_tokens


def _shaped(link: CloudLink, profile: LinkProfile, seed: int) -> CloudLink:
    """Return a device's link, as slow as its profile says."""
    return link if _is_real(profile) else ShapedCloudLink(link, profile, seed)


def _is_real(profile: LinkProfile) -> bool:
    return profile.rtt_s == 0 and profile.bytes_per_s is None


def _link_label(profile: LinkProfile) -> str:
    if _is_real(profile):
        return "link: real, nothing emulated"
    return f"link: emulated, {profile.name} (RTT {profile.rtt_s * 1000:g} ms; {profile.source})"


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = read_text_file(path)
    except OSError as error:
        raise ConfigError(f"--text {path} cannot be read: {error.strerror}") from error
    if not text.strip():
        raise ConfigError(f"--text {path} is empty; prompts are pieces of it")
    return text
