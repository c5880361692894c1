"""Shared by all tests: the numerics environment must be set before anything imports torch."""

from pd_core.numerics import prepare_environment

prepare_environment()
