"""A command's `main` in this process, where starting one would only load torch once more."""

import io
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import torch


def run_here(
    main: Callable[[], None], *words: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a command and return what a process would: its exit code and both outputs.

    Args:
        main: the command's entry point.
        words: of the command line.
        stdin: its standard input.
    """
    out, err = io.StringIO(), io.StringIO()
    threads, handlers, level = torch.get_num_threads(), logging.root.handlers[:], logging.root.level
    code: object = 0
    try:
        with (
            patch.object(sys, "argv", ["command", *words]),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        torch.set_num_threads(threads)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    assert isinstance(code, int), "a command ends with a number"
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
