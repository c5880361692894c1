"""`pd-bench replay`: its options, where its result goes, and how it ends when interrupted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.commands.document_output import document_into
from pd_bench.endpoint.settings import PROMPT_KINDS, EndpointSettings
from pd_bench.harness.command_run import prepare, run_to_end
from pd_bench.replay.schemes import SCHEMES
from pd_bench.replay.settings import FIDELITIES, ReplaySettings
from pd_bench.results.result import ResultDocument
from pd_core.errors import ConfigError, PdError
from pd_core.host.api_key import read_api_key
from pd_core.host.ending_signals import INTERRUPTED
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.planning.profiles import DEVICE_PROFILES, LINK_PROFILES

__all__ = ["replay"]

_DEVICES = ", ".join(sorted(DEVICE_PROFILES))
_FLEET, _LOOPBACK, _SLOTS = "fleet", "loopback", 16
_OF_ENDPOINTS: tuple[str, ...] = ("--endpoint-prompts", "--endpoint-plain")
_OF_CLOUDS: tuple[str, ...] = ("--tls", "--tls-ca", "--api-key-file", "--insecure")
_NOT_OF_ENDPOINTS: tuple[str, ...] = (
    *("--schemes", "--fidelity", "--device-profile", "--link-profile", "--max-num-seqs"),
    *("--cloud", "--tls", "--tls-ca"),
)
_ALL_SCHEMES = ",".join(SCHEMES)
_LINKS = ", ".join(sorted(LINK_PROFILES))

Trace = Annotated[
    Path, typer.Argument(help="Azure or BurstGPT CSV; Mooncake, Qwen or our JSONL; may be gzip.")
]
Limit = Annotated[int | None, typer.Option(help="Only the first so many rows.")]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave broken rows of the trace out; count them.")
]
Pace = Annotated[float, typer.Option(help="Seconds between shown tokens.")]
Model = Annotated[
    str | None,
    typer.Option(help=f"{MODEL_HELP} {DEFAULT_MODEL} when not given; of --endpoint, its only one."),
]
Schemes = Annotated[str, typer.Option(help="Which, comma-separated; also pd-device-kN, race-only.")]
Fidelity = Annotated[str, typer.Option(help=f"One of {', '.join(FIDELITIES)}.")]
DeviceProfile = Annotated[
    str | None, typer.Option(help=f"Speed of the devices: {_DEVICES}; a real one needs none.")
]
LinkProfile = Annotated[str, typer.Option(help=f"One of {_LINKS}.")]
MaxPromptTokens = Annotated[
    int | None, typer.Option(help="Cut longer prompts; the context's room when not given.")
]
MaxOutputTokens = Annotated[
    int, typer.Option(help="Cut longer answers; also every request's token limit.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of prompts, sampling and emulated spread.")]
Repeat = Annotated[int, typer.Option(help="Passes; the schemes' order rotates.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Slots = Annotated[int, typer.Option(help="Slots of our own server.")]
Timeout = Annotated[float, typer.Option(help="Seconds after which a request has failed.")]
Cloud = Annotated[str | None, typer.Option(help="HOST:PORT of a server to use, not our own.")]
TlsCa = Annotated[Path | None, typer.Option(help="Authority to trust for --cloud.")]
Tls = Annotated[bool, typer.Option("--tls", help="TLS to --cloud, by the system's authorities.")]
ApiKeyFile = Annotated[Path | None, typer.Option(help="File with the key for --cloud.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Plaintext beyond this machine.")]
JsonOut = Annotated[
    Path | None, typer.Option("--json", help="Write the result document here; - prints it last.")
]

EndpointUrl = Annotated[
    str | None, typer.Option("--endpoint", help="An OpenAI-compatible server to replay against.")
]
EndpointPrompts = Annotated[
    str, typer.Option(help=f"What --endpoint is sent: {' or '.join(PROMPT_KINDS)}.")
]
EndpointPlain = Annotated[
    bool, typer.Option("--endpoint-plain", help="Only the fields of OpenAI's own API.")
]
ReportOut = Annotated[
    Path | None, typer.Option("--report", help="Write the result as one page here, too.")
]


def replay(
    trace: Trace,
    schemes: Schemes = _ALL_SCHEMES,
    limit: Limit = None,
    fidelity: Fidelity = _FLEET,
    pace: Pace = 0.1,
    device_profile: DeviceProfile = None,
    link_profile: LinkProfile = _LOOPBACK,
    max_prompt_tokens: MaxPromptTokens = None,
    max_output_tokens: MaxOutputTokens = 1024,
    seed: Seed = 0,
    repeat: Repeat = 1,
    temperature: Temperature = 0.0,
    model: Model = None,
    max_num_seqs: Slots = _SLOTS,
    timeout: Timeout = 600.0,
    cloud: Cloud = None,
    tls_ca: TlsCa = None,
    tls: Tls = False,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    skip_broken: SkipBroken = False,
    endpoint: EndpointUrl = None,
    endpoint_prompts: EndpointPrompts = PROMPT_KINDS[0],
    endpoint_plain: EndpointPlain = False,
    json_out: JsonOut = None,
    report_out: ReportOut = None,
) -> None:
    """Replay a trace under several schemes and compare them side by side."""
    settings: ReplaySettings | EndpointSettings
    _refuse_useless(
        {
            "--schemes": schemes != _ALL_SCHEMES,
            "--fidelity": fidelity != _FLEET,
            "--device-profile": device_profile is not None,
            "--link-profile": link_profile != _LOOPBACK,
            "--max-num-seqs": max_num_seqs != _SLOTS,
            "--cloud": cloud is not None,
            "--tls": tls,
            "--tls-ca": tls_ca is not None,
            "--api-key-file": api_key_file is not None,
            "--insecure": insecure,
            "--endpoint-prompts": endpoint_prompts != PROMPT_KINDS[0],
            "--endpoint-plain": endpoint_plain,
        },
        to_endpoint=endpoint is not None,
    )
    if endpoint is not None:
        settings = EndpointSettings(
            trace=trace,
            url=endpoint,
            model=model,
            pace_s=pace,
            limit=limit,
            max_prompt_tokens=max_prompt_tokens,
            max_output_tokens=max_output_tokens,
            seed=seed,
            temperature=temperature,
            repeat=repeat,
            timeout_s=timeout,
            prompts=endpoint_prompts,
            plain=endpoint_plain,
            api_key=None if api_key_file is None else read_api_key(api_key_file),
            insecure=insecure,
            skip_broken=skip_broken,
        )
    else:
        settings = ReplaySettings(
            trace=trace,
            schemes=tuple(name.strip() for name in schemes.split(",") if name.strip()),
            fidelity=fidelity,
            pace_s=pace,
            limit=limit,
            device_profile=device_profile,
            link_profile=link_profile,
            max_prompt_tokens=max_prompt_tokens,
            max_output_tokens=max_output_tokens,
            seed=seed,
            temperature=temperature,
            repeat=repeat,
            model=model or DEFAULT_MODEL,
            max_num_seqs=max_num_seqs,
            cloud=_cloud_access(cloud, tls_ca, tls, api_key_file, insecure),
            timeout_s=timeout,
            skip_broken=skip_broken,
        )
    failures: list[PdError] = []
    document = document_into(trace, json_out, report_out, lambda: _replay(settings, failures))
    if failures:
        raise failures[0]  # what had been measured by then is written
    if document.partial:
        raise typer.Exit(INTERRUPTED)


def _refuse_useless(given: Mapping[str, bool], *, to_endpoint: bool) -> None:
    """Refuse options that would be left undone in silence.

    Args:
        given: whether each option was.
        to_endpoint: whether an endpoint is replayed against.

    Raises:
        ConfigError: such an option was given.
    """
    if to_endpoint:
        useless, where = _NOT_OF_ENDPOINTS, "to --endpoint, which is seen from outside as it is"
    elif any(given[option] for option in _OF_ENDPOINTS):
        useless, where = _OF_ENDPOINTS, "without --endpoint"
    elif not given["--cloud"]:
        useless, where = _OF_CLOUDS, "without --cloud: our own server is on this machine"
    else:
        return
    if found := [option for option in useless if given[option]]:
        raise ConfigError(f"{', '.join(found)} says nothing {where}")


def _cloud_access(
    cloud: str | None, tls_ca: Path | None, tls: bool, api_key_file: Path | None, insecure: bool
) -> CloudAddress | None:
    if cloud is None:
        return None
    key = None if api_key_file is None else read_api_key(api_key_file)
    return CloudAddress(cloud, tls_ca, tls, key, insecure)


def _replay(settings: ReplaySettings | EndpointSettings, failures: list[PdError]) -> ResultDocument:
    """Run a replay, print its table, return its document, and add what ended it early."""
    prepare()
    from pd_bench.endpoint.replay import EndpointReplay
    from pd_bench.replay.progress import Progress
    from pd_bench.replay.replay import Replay
    from pd_bench.reports.table import print_result

    with Progress(Console(stderr=True), settings.pace_s) as progress:
        run = (
            EndpointReplay(settings, progress)
            if isinstance(settings, EndpointSettings)
            else Replay(settings, progress)
        )
        document = run_to_end(run.run())
    if run.failure is not None:
        failures.append(run.failure)
    print_result(document, Console())
    return document
