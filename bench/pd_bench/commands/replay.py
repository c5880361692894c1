"""`pd-bench replay`: its options, where its result goes, and how it ends when interrupted."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_bench.commands.document_output import Outputs, document_into
from pd_bench.endpoint.settings import EndpointSettings
from pd_bench.harness.command_run import prepare, run_to_end
from pd_bench.replay.cloud_options import CloudOptions
from pd_bench.replay.settings import ReplaySettings
from pd_core.errors import ConfigError, PdError
from pd_core.files.api_key import chosen_api_key
from pd_core.process.ending_signals import INTERRUPTED
from pd_core.settings.option import Part
from pd_core.settings.program import Read

if TYPE_CHECKING:
    from pd_bench.results.result import ResultDocument

__all__ = ["Replayed", "replay"]

_OF_ENDPOINTS: tuple[str, ...] = ("endpoint_prompts", "endpoint_plain")
_OF_CLOUDS: tuple[str, ...] = ("tls", "tls_ca", "api_key_file", "insecure")
_NOT_OF_ENDPOINTS: tuple[str, ...] = (
    *("schemes", "fidelity", "device_profile", "link_profile", "max_num_seqs"),
    *("cloud", "tls", "tls_ca"),
)


@dataclass(frozen=True, slots=True)
class Replayed:
    """The replay's settings, its cloud, and where the result goes."""

    run: Annotated[EndpointSettings | ReplaySettings, Part()]
    cloud: Annotated[CloudOptions, Part("Cloud")] = field(default_factory=CloudOptions)
    outputs: Annotated[Outputs, Part()] = field(default_factory=Outputs)


def replay(asked: Replayed, read: Read) -> None:
    """Replay a trace under several schemes and compare them side by side."""
    _refuse_useless(read.sources)
    settings = asked.run
    if isinstance(settings, EndpointSettings):
        settings = replace(settings, api_key=chosen_api_key(asked.cloud.api_key_file, None, ""))
    else:
        settings = replace(settings, cloud=asked.cloud.address())
    failures: list[PdError] = []
    document = document_into(settings.trace, asked.outputs, lambda: _replay(settings, failures))
    if failures:
        raise failures[0]  # after the partial result was written
    if document.partial:
        raise typer.Exit(INTERRUPTED)


def _refuse_useless(given: Collection[str]) -> None:
    """Refuse options that would have no effect.

    Raises:
        ConfigError: such an option was given.
    """
    if "endpoint" in given:
        useless, where = _NOT_OF_ENDPOINTS, "to --endpoint, which is seen from outside as it is"
    elif any(option in given for option in _OF_ENDPOINTS):
        useless, where = _OF_ENDPOINTS, "without --endpoint"
    elif "cloud" not in given:
        useless, where = _OF_CLOUDS, "without --cloud: our own server is on this machine"
    else:
        return
    if found := [f"--{option.replace('_', '-')}" for option in useless if option in given]:
        raise ConfigError(f"{', '.join(found)} says nothing {where}")


def _replay(
    settings: ReplaySettings | EndpointSettings, failures: list[PdError]
) -> "ResultDocument":
    """Run a replay, print its table, return its document; append the error that ended it early."""
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
