"""Shared by all tests: what must be in the environment before anything imports torch."""

import contextlib
import gc
import importlib
import os
import signal
import sys
import tempfile

import pytest

from pd_core.host.torch_environment import prepare_environment

prepare_environment()
# torch's compiler wants it, and it cannot be loaded after the standard library's distutils.
importlib.import_module("setuptools")
# Two-thread tests on a busy machine: a waiting thread must sleep, not spin away the other's core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Commands run in this process, so gRPC has threads here when a test starts a process: nothing of
# gRPC is to run between fork and exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# A shell's background job begins with Ctrl-C ignored, and so would every command started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
if _PARALLEL:  # a core for each; what is about two threads asks for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
with contextlib.suppress(ImportError):  # vLLM's environment has none
    from hypothesis import HealthCheck, settings

    # The same examples each time, however long a busy machine takes for one: a run says whether
    # this code is right, and finds nothing by luck. To search: pytest --hypothesis-profile default
    settings.register_profile(
        "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Give the run, with all processes it starts, one cache: each fact is found out once."""
    if not _PARALLEL:
        cache = tempfile.TemporaryDirectory(prefix="pd-test-cache-")
        config.add_cleanup(cache.cleanup)
        os.environ["XDG_CACHE_HOME"] = cache.name


def pytest_runtest_setup() -> None:
    """Let torch draw the same numbers in a test whichever tests came before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


gc.disable()  # until all is imported and collected, of which next to nothing is garbage


def pytest_collection_finish() -> None:
    """Prepare what is imported by now.

    The collector is kept from going through every module and test again and again.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    if module := sys.modules.get("pd_core.text.chat_template"):
        # A template takes milliseconds, but on a busy machine its process may wait for seconds.
        module.ChatTemplate.__init__.__kwdefaults__["time_limit_s"] = 30.0
