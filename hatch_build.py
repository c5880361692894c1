"""Builds the native kernels into the wheel, or beside the sources where the install is editable.

PD_KERNEL_TARGET names another kind of machine, for which zig builds the wheel (`make wheels`); that
must succeed. Without it any compiler will do, and where there is none the install goes on: torch
computes the same, slower. PD_KERNEL=off builds nothing.

PD_REPOSITORY_URL is the repository's address, for the metadata of a release; without it a build has
no addresses.
"""

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_ZIG = "ziglang>=0.13"


class AddressHook(MetadataHookInterface):
    """Hatchling's hook for metadata."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the addresses of the repository that makes a release."""
        url = os.environ.get("PD_REPOSITORY_URL", "").rstrip("/")
        if not url:
            return
        if not url.startswith("https://"):
            raise ValueError(f"PD_REPOSITORY_URL={url!r} must begin with https://")
        metadata["urls"] = {
            "Repository": url,
            "Documentation": f"{url}/tree/HEAD/docs",
            "Changelog": f"{url}/blob/HEAD/CHANGELOG.md",
            "Issues": f"{url}/issues",
            "Security": f"{url}/blob/HEAD/SECURITY.md",
        }


class KernelHook(BuildHookInterface):
    """Hatchling's hook for wheels."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Ask for zig where it is to build, or where the machine has no compiler."""
        if not self._has_sources():
            return []
        from pd_core.integer.compiler import find_compilers

        wanted = os.environ.get("PD_KERNEL_TARGET") or not find_compilers()
        return [_ZIG] if wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build; a wheel that holds a library is for one kind of machine."""
        if not self._has_sources():
            return
        from pd_core.errors import ConfigError
        from pd_core.integer.build import SOURCES, build
        from pd_core.integer.target import TARGETS

        name = os.environ.get("PD_KERNEL_TARGET")
        if name is not None and name not in TARGETS:
            raise ConfigError(f"PD_KERNEL_TARGET={name!r} is none of {', '.join(TARGETS)}")
        target = None if name is None else TARGETS[name]
        self._folder = tempfile.TemporaryDirectory(prefix="pd-kernel-")
        editable = version == "editable"
        try:
            library = build(target, SOURCES if editable else Path(self._folder.name))
        except ConfigError as error:
            if target is not None:
                raise
            self.app.display_warning(f"{error}\ntorch will compute what the kernels would, slower")
            return
        if editable:
            return
        within = SOURCES.relative_to(Path(self.root) / "core") / library.name
        build_data["force_include"][str(library)] = within.as_posix()
        build_data["pure_python"] = False
        here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{here if target is None else target.wheel_platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Forget the library that was built."""
        if self._has_sources():
            self._folder.cleanup()

    def _has_sources(self) -> bool:
        """Whether there is something to build: images install the dependencies alone, first."""
        core = Path(self.root) / "core"
        if os.environ.get("PD_KERNEL") == "off" or not (core / "pd_core/integer/native").is_dir():
            return False
        if str(core) not in sys.path:
            sys.path.insert(0, str(core))
        return True
