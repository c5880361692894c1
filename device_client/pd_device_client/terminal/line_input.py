"""Reading a chat's prompts from a terminal: editing, history, several lines."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from pd_core.errors import ConfigError
from pd_core.host.user_folders import user_folder

__all__ = ["LineDropped", "history_path", "terminal_reader"]


class LineDropped(Exception):
    """Ctrl-C while a prompt was being typed; a KeyboardInterrupt would end the event loop."""


def history_path() -> Path | None:
    """Return the file of earlier prompts, in the user's state folder; None without a home."""
    state = user_folder("XDG_STATE_HOME", ".local/state")
    return None if state is None else state / "pd-device" / "chat-history"


def terminal_reader(
    history: Path | None, commands: list[str], toolbar: Callable[[], str]
) -> Callable[[], Awaitable[str]]:
    """Return a function that reads one prompt.

    It raises EOFError for Ctrl-D on an empty line and LineDropped for Ctrl-C.

    Args:
        history: the file of prompts, readable only by this user; None keeps none.
        commands: completed at the beginning of a line.
        toolbar: returns the text below the prompt.

    Raises:
        ConfigError: the history cannot be written.
    """
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _break_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        "> ",
        history=_history(history),
        multiline=True,  # pasted lines stay one prompt
        key_bindings=keys,
        completer=WordCompleter(commands, sentence=True),
        complete_while_typing=False,
        bottom_toolbar=toolbar,
        prompt_continuation="  ",
        interrupt_exception=LineDropped,
    )
    return session.prompt_async


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # an existing file may be readable by others
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(
            f"the history {path} cannot be written ({error.strerror}); mend that, or keep none "
            "with --no-history"
        ) from error
    return FileHistory(path)
