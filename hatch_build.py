"""Build the wheel of the networks: `efficientnet`, with the modules of `system` that it needs inside.

`system` is too general a name for site-packages. The wheel holds the modules of it that `efficientnet`
imports as `efficientnet/_system`, and the imports are rewritten to that name. An editable installation
needs none of this: it puts the repository itself on the path.
"""

import ast
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE, GROUND, INSIDE = "efficientnet", "system", "_system"
LEFT_OUT = {"weights/run.py"}  # reads runs, which are where the trainer is
IMPORT = re.compile(rf"^(\s*)from {GROUND}\b(?=[ .])", re.MULTILINE)


class Networks(BuildHookInterface):
    """Fill the wheel from a rewritten copy of the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy and rewrite the sources; hatchling takes the copy instead of the folder."""
        if self.target_name != "wheel" or version == "editable":
            return
        self.copy = Path(tempfile.mkdtemp())
        root = Path(self.root)
        for source in sorted((root / PACKAGE).rglob("*.py")):
            place = source.relative_to(root / PACKAGE)
            if place.as_posix() not in LEFT_OUT:
                self._write(source, self.copy / place)
        for source in ground_modules(root):
            self._write(source, self.copy / INSIDE / source.name)
        build_data["force_include"][str(self.copy)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copy."""
        if hasattr(self, "copy"):
            shutil.rmtree(self.copy)

    def _write(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(IMPORT.sub(rf"\1from {PACKAGE}.{INSIDE}", source.read_text()))


def ground_modules(root: Path) -> list[Path]:
    """Return the files of `system` that the package imports, directly or through others of them."""
    found: set[Path] = set()
    open_files = list((root / PACKAGE).rglob("*.py"))
    while open_files:
        for module in _imports(open_files.pop()):
            path = root / f"{module.replace('.', '/')}.py"
            if module.startswith(f"{GROUND}.") and path not in found and path.is_file():
                found.add(path)
                open_files.append(path)
    return sorted({*found, root / GROUND / "__init__.py"}) if found else []


def _imports(source: Path) -> set[str]:
    """Return what a file imports by `from MODULE import NAME`, as MODULE and MODULE.NAME."""
    nodes = [n for n in ast.walk(ast.parse(source.read_text())) if isinstance(n, ast.ImportFrom)]
    pairs = [(node.module or "", alias.name) for node in nodes for alias in node.names]
    return {module for module, _ in pairs} | {f"{module}.{name}" for module, name in pairs}
