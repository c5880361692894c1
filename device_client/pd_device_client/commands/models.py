"""`pd-device models`: list, pull, verify and remove models by name."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from pd_core.errors import ConfigError, ModelError
from pd_core.files.api_key import read_api_key
from pd_core.sockets.loopback import is_loopback_url
from pd_core.store.catalogue import CATALOGUE
from pd_core.store.model_names import DEFAULT_MODEL, RANDOM_TINY
from pd_core.store.model_store import pulled_names, store_root
from pd_device_client.terminal.columns import aligned

__all__ = ["models"]

models = typer.Typer(
    help="Models by name: pulled from a hub, checked, and usable with every --model.",
    no_args_is_help=True,
)

Name = Annotated[
    str,
    typer.Argument(help=f"{', '.join(CATALOGUE)}, OWNER/MODEL, or OWNER/MODEL@REVISION."),
]


@models.command("list")
def list_models() -> None:
    """List the models on this machine."""
    from pd_core.store.manifest import read_manifest
    from pd_device_client.hub.pulled_models import partial_bytes

    rows = [
        ("model", "size", "commit"),
        (DEFAULT_MODEL, "-", "in the package"),
        (RANDOM_TINY, "-", "made on the spot"),
    ]
    here = list(pulled_names())
    rows += [
        (known.name, _mib(known.size_bytes), f"not here: pd-device models pull {known.name}")
        for known in CATALOGUE.values()
        if known.name not in map(str, here)
    ]
    for name in here:
        try:
            manifest = read_manifest(name)
        except ModelError:  # verify says what is wrong with it
            rows.append((str(name), "-", "damaged: pull it again"))
        else:
            rows.append((str(name), _mib(manifest.size_bytes), manifest.commit[:12]))
    for name in pulled_names(partial=True):
        rows.append((str(name), _mib(partial_bytes(name)), "incomplete: pull again to go on"))
    for line in aligned(rows):
        _say(line)
    try:
        _say(f"pulled models are in {store_root()}")
    except ConfigError as error:  # to have none is no failure
        _say(str(error))


@models.command("pull")
def pull_model(
    name: Name,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="PD_DEVICE_HUB_TOKEN_FILE",
            help="File with a token for models that need one; or log in with hf auth login.",
        ),
    ] = None,
) -> None:
    """Get a model from a hub, or update it; an interrupted pull resumes where it stopped."""
    from pd_device_client.hub.known_model_pull import pull_known
    from pd_device_client.hub.model_hub import ModelHub
    from pd_device_client.hub.model_pull import pull
    from pd_device_client.hub.pulled_models import pulled_name

    wanted = pulled_name(name)
    hub = ModelHub(token=None if token_file is None else read_api_key(token_file))
    if is_loopback_url(hub.endpoint):  # the library's client reads the environment when it is made
        direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        host = urlsplit(hub.endpoint).hostname
        os.environ["no_proxy"] = ",".join(filter(None, (direct, host)))
    with _progress() as show:
        if (known := CATALOGUE.get(name)) is not None:
            manifest, changed = pull_known(known, hub, show)
        else:
            manifest, changed = pull(hub, wanted, show)
    words = "is here" if changed else "is up to date"
    _say(f"{wanted} {words}: {_mib(manifest.size_bytes)}, commit {manifest.commit[:12]}")


@models.command("verify")
def verify_models(
    name: Annotated[str | None, typer.Argument(help="Which; all when not given.")] = None,
) -> None:
    """Compare models' files with what was pulled, byte by byte."""
    from pd_device_client.hub.pulled_models import differences, pulled_name

    good = True
    for checked in [pulled_name(name)] if name is not None else list(pulled_names()):
        try:
            with _progress() as show:
                found = differences(checked, partial(show, str(checked)))
        except ModelError as error:
            if name is not None:
                raise
            found = [str(error)]  # go on with the other models
        _say(f"{'BAD' if found else 'ok '}  {checked}")
        for words in found:
            _say(f"     {words}")
        if found:
            _say(f"     mend: pd-device models pull {checked}")
        good = good and not found
    raise typer.Exit(0 if good else 1)


@models.command("remove")
def remove_model(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a model from this machine, even an incomplete one."""
    from pd_device_client.hub.pulled_models import pulled_name, remove

    wanted = pulled_name(name)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"nobody can be asked whether to remove {wanted}; confirm with --yes")
        typer.confirm(f"Remove {wanted} from this machine?", abort=True)
    freed = remove(wanted)
    _say(f"{wanted} is removed: {_mib(freed)} are free again")


def _say(line: str) -> None:
    Console(highlight=False).print(line, soft_wrap=True, markup=False)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on a terminal; on anything else, nothing."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("asking", total=None)
        yield lambda what, done, total: progress.update(
            task, description=what, completed=done, total=total
        )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.1f} MiB"
