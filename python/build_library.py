"""Build hook of the wheel: libnpcache.so, built by cargo from the workspace around this package, goes into it.

NPCACHE_LIBRARY, if set, is the path of a library that was built before, and is taken as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LibraryBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"  # ctypes: one wheel for all versions of Python
        build_data["pure_python"] = False
        if version == "editable":
            return  # a checkout: the library is found in target/release
        target = Path(self.root, "src", "npcache", "libnpcache.so")
        library = os.environ.get("NPCACHE_LIBRARY") or self._build()
        target.unlink(missing_ok=True)
        shutil.copyfile(library, target)
        strip = shutil.which("strip")
        if strip:
            subprocess.run([strip, "--strip-debug", str(target)], check=True)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        Path(self.root, "src", "npcache", "libnpcache.so").unlink(missing_ok=True)

    def _build(self) -> Path:
        workspace = Path(self.root).parent
        manifest = workspace / "Cargo.toml"
        cargo = os.environ.get("CARGO") or shutil.which("cargo")
        if not manifest.is_file() or cargo is None:
            raise RuntimeError(
                f"the library is built from {manifest} with cargo: install Rust from a checkout of the repository, "
                "or set NPCACHE_LIBRARY to a libnpcache.so"
            )
        command = [cargo, "build", "--release", "--package", "npcache-ffi", "--manifest-path", str(manifest)]
        subprocess.run(command, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR") or workspace / "target")
        return target / "release" / "libnpcache.so"
