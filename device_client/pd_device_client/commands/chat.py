"""`pd-device chat`: from its settings to an answer, or a conversation."""

import sys
from dataclasses import replace

from rich.console import Console

from pd_core.errors import ConfigError
from pd_core.files.text_file import decoded
from pd_core.host.torch_environment import prepare_environment
from pd_core.process.quick_imports import quick_imports
from pd_core.process.until_signal import run_until_signal
from pd_core.settings.program import Read
from pd_device_client.commands.messages import configure_logging, warn_of_exposed
from pd_device_client.contract.ports import CloudLink
from pd_device_client.terminal.settings import ChatSettings

__all__ = ["chat"]


def chat(settings: ChatSettings, _: Read) -> None:
    """Answer PROMPT, or converse; the cloud begins, this device continues once it caught up."""
    configure_logging(settings.log_level)
    prepare_environment(fast=settings.device.fast_numerics)
    prompt = settings.prompt
    converses = prompt is None and sys.stdin is not None and sys.stdin.isatty()
    if not converses and (prompt is None or prompt == "-"):
        settings = replace(settings, prompt=_standard_input())
    warn_of_exposed([settings.cloud.api_key_file])
    given = settings.cloud.address()
    address = None if settings.cloud.target is None else given

    # These import torch, so after prepare_environment, and not for --help; and before there is an
    # event loop, which would obey signals only after the imports.
    with quick_imports():
        from pd_device_client.cloud.egress import way_out
        from pd_device_client.terminal import chat as _terminal  # noqa: F401

    async def run() -> None:
        link = way_out(address, settings.way_mode)  # on the loop that will use it
        await (_converse if converses else _answer)(settings, link)

    run_until_signal(run())


def _standard_input() -> str:
    if sys.stdin is None:  # the parent process closed it
        raise ConfigError(
            "there is no standard input to read the prompt from; give the prompt as an argument"
        )
    try:
        # Text that another program has put in the place of standard input has no bytes.
        source = getattr(sys.stdin, "buffer", None)
        return sys.stdin.read() if source is None else decoded(source.read())
    except ValueError as error:
        raise ConfigError(f"the prompt on standard input is not text: {error}") from None


async def _answer(settings: ChatSettings, link: CloudLink | None) -> None:
    from pd_device_client.terminal.chat import chat as answer
    from pd_device_client.terminal.chat import summary

    console, notices = Console(highlight=False), Console(stderr=True, highlight=False)
    outcome = await answer(settings, link, console, notices)
    if settings.show_origin:
        console.print(summary(outcome), soft_wrap=True)


async def _converse(settings: ChatSettings, link: CloudLink | None) -> None:
    from pd_device_client.terminal.chat import load
    from pd_device_client.terminal.line_input import history_path, terminal_reader
    from pd_device_client.terminal.repl import COMMANDS, Repl

    repl: Repl | None = None
    read = terminal_reader(
        None if settings.no_history else history_path(),
        [*COMMANDS],
        lambda: "" if repl is None else f"{repl.mode.value}   Alt-Enter: a line   /help",
    )
    device = await load(settings, link)
    try:
        console = Console(highlight=False)
        repl = Repl(settings, device, console, read, has_cloud=link is not None)
        await repl.run()
    finally:
        await device.close()
