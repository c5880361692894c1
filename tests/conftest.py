"""Shared by all tests: the numerics environment must be set before anything imports torch."""

import os

from pd_core.host.torch_environment import prepare_environment

prepare_environment()
# Two-thread tests on a busy machine: a waiting thread must sleep, not spin away the other's core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
