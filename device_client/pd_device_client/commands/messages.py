"""A command's log and warnings, on standard error."""

import logging
from collections.abc import Iterable
from pathlib import Path

import typer

from pd_core.files.api_key import key_exposure

__all__ = ["configure_logging", "warn_of_exposed"]


def warn_of_exposed(key_files: Iterable[Path | None]) -> None:
    """Warn of key files that others can read; not in the log, as chat logs only errors."""
    for path in key_files:
        if path is not None and (exposed := key_exposure(path)):
            typer.echo(f"warning: {exposed}", err=True)


def configure_logging(level: str) -> None:
    """Log to standard error from `level` up, as the option has checked it."""
    logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s: %(message)s")
