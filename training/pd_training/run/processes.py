"""One process or several, started by torchrun; torch's own DDP does the work."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Self, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pd_core.errors import ConfigError

__all__ = ["Processes"]


class Processes:
    """The processes of one run.

    Attributes:
        rank, world: the index of this process, and the number of processes.
        device: where this process computes.

    Args:
        compiled: run models through torch.compile: the same losses up to rounding.
    """

    def __init__(
        self, rank: int, world: int, device: torch.device, *, compiled: bool = False
    ) -> None:
        self.rank = rank
        self.world = world
        self.device = device
        self._compiled = compiled

    @classmethod
    @contextlib.contextmanager
    def joined(cls, device: str, *, compiled: bool = False) -> Iterator[Self]:
        """Join the group that the environment names, and leave it at the end.

        Args:
            device: "cpu" or "cuda"; with CUDA each process takes the GPU of its local rank.
            compiled: as for the class.

        Raises:
            ConfigError: the device is unknown, or CUDA or compiling is not possible here.
        """
        if device not in ("cpu", "cuda"):
            raise ConfigError(f"unknown device {device!r}; known: cpu, cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("--device cuda, but torch finds no GPU; use --device cpu")
        compiler = os.environ.get("CXX", "g++")
        if compiled and not (shutil.which(compiler) or shutil.which("clang++")):
            raise ConfigError(f"--compile needs a C++ compiler, and there is no {compiler}")
        world = int(os.environ.get("WORLD_SIZE", "1"))
        place = torch.device(device)
        if device == "cuda":
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(place)
        if world == 1:
            yield cls(0, 1, place, compiled=compiled)
            return
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        try:
            yield cls(dist.get_rank(), dist.get_world_size(), place, compiled=compiled)
        finally:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints messages."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over all processes.

        It shares the model's parameters.
        """
        if self._compiled:
            torch.compiler.reset()  # earlier runs count towards the limit of recompilations
            model = cast(nn.Module, torch.compile(model))
        if self.world == 1:
            return model
        places = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=places)

    def unsynchronised(
        self, module: nn.Module, wanted: bool
    ) -> contextlib.AbstractContextManager[None]:
        """Return a context in which gradients are only accumulated locally, if wanted."""
        if wanted and isinstance(module, DistributedDataParallel):
            context: contextlib.AbstractContextManager[None] = module.no_sync()
            return context
        return contextlib.nullcontext()

    def mean(self, value: Tensor) -> float:
        """Return the mean of a scalar over all processes."""
        if self.world > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.world
        return value.item()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process, so that all stop at the same step."""
        if self.world == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()
