"""What the native kernels are compiled for: a processor, a system, and what follows from both."""

import platform
import sys
import sysconfig
from dataclasses import dataclass

__all__ = ["TARGETS", "Kernel", "Target", "this_machine"]

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_SYSTEMS = {"darwin": "macos", "win32": "windows"}
_LIBRARIES = {"macos": "libpd_kernel.dylib", "windows": "pd_kernel.dll"}
_ZIG_SYSTEMS = {"linux": "linux-gnu.2.17", "macos": "macos.11.0", "windows": "windows-gnu"}
_ZIG_PROCESSORS = {"x86_64": "x86_64", "aarch64": "generic", "aarch64-macos": "apple_m1"}
_PLATFORMS = {
    "x86_64-linux": "manylinux_2_17_x86_64",
    "aarch64-linux": "manylinux_2_17_aarch64",
    "aarch64-macos": "macosx_11_0_arm64",
    "x86_64-windows": "win_amd64",
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One compilation of kernel.c.

    Attributes:
        name: as PD_KERNEL and the library know it.
        features: of the processor, beyond what each of its kind has.
        others: further flags.
    """

    name: str
    features: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


_PORTABLE = Kernel("portable", (), ("-DPD_PORTABLE",))
_AVX512 = ("avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
_KERNELS = {
    "x86_64": (
        _PORTABLE,
        Kernel("avx2", ("avx2",)),
        Kernel("avx512", _AVX512, ("-mprefer-vector-width=512",)),
    ),
    "aarch64": (_PORTABLE, Kernel("dotprod", ("dotprod",))),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of machine.

    Attributes:
        arch: "x86_64" or "aarch64"; any other has the portable kernel alone.
        system: "linux", "macos" or "windows"; any other is treated as Linux.
    """

    arch: str
    system: str

    def __str__(self) -> str:
        return f"{self.arch}-{self.system}"

    @property
    def library_name(self) -> str:
        """The library's file."""
        return _LIBRARIES.get(self.system, "libpd_kernel.so")

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """What kernel.c is compiled for."""
        return _KERNELS.get(self.arch, (_PORTABLE,))

    @property
    def libraries(self) -> tuple[str, ...]:
        """The linker's flags."""
        return () if self.system == "windows" else ("-lm", "-lpthread")

    @property
    def wheel_platform(self) -> str:
        """The platform in the name of a wheel that zig built for this target."""
        return _PLATFORMS[str(self)]

    def flags(self, kernel: Kernel = _PORTABLE, *, zig: bool = False) -> tuple[str, ...]:
        """Return a compiler's flags for this target and a kernel.

        zig would compile for the very processor it runs on, and against its newest libraries.
        """
        if zig:
            base = _ZIG_PROCESSORS.get(str(self)) or _ZIG_PROCESSORS.get(self.arch, "baseline")
            processor = "+".join((base, *kernel.features))
            triple = f"{self.arch}-{_ZIG_SYSTEMS.get(self.system, self.system)}"
            return ("-target", triple, f"-mcpu={processor}", *kernel.others)
        if self.arch == "aarch64":
            wanted = [f"-march=armv8.2-a+{feature}" for feature in kernel.features]
        else:
            wanted = [f"-m{feature}" for feature in kernel.features]
        return (*wanted, *kernel.others)


TARGETS = {name: Target(*name.split("-")) for name in _PLATFORMS}
"""The targets that have wheels, by name; zig builds each of them on any machine."""


def this_machine() -> Target:
    """Return the kind of machine that runs this Python."""
    machine = platform.machine().lower()
    if sys.platform == "win32":  # an emulated Python is of another kind than its machine
        machine = sysconfig.get_platform().rpartition("-")[2]
    return Target(_ARCHITECTURES.get(machine, machine), _SYSTEMS.get(sys.platform, sys.platform))
