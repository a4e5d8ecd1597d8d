"""The oracle knows nothing of what it judges: it imports no other part of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import liquid_ssm.oracle

assert liquid_ssm.oracle.__file__ is not None
FOLDER = Path(liquid_ssm.oracle.__file__).parent
FILES = sorted(FOLDER.glob("**/*.py"))


def foreign_imports(source: str) -> list[str]:
    """Imports of the package outside its oracle, at any depth of the code; the folder is flat.

    Relative imports may not climb, and a module name in a string (for `import_module`) counts as an import.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names = [f"{module}.{alias.name}" if node.level != 1 else "" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            names = [node.value]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            climbs = name.startswith("..")
            outside = top == "liquid_ssm" and rest.partition(".")[0] != "oracle"
            if climbs or outside or top in ("oracle", "backends"):
                found.append(name)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import liquid_ssm",
        "import liquid_ssm.systems as s",
        "from liquid_ssm import systems",
        "from liquid_ssm.errors import ShapeError",
        "from ..systems import DiagonalSystem",
        "from .. import problem",
        "import backends",
        "import oracle.exact",
        "def f():\n    from liquid_ssm.backends import x",
        "import_module('liquid_ssm.systems')",
    ],
)
def test_the_check_sees_a_foreign_import(source: str) -> None:
    assert foreign_imports(source)


@pytest.mark.parametrize(
    "source", ["import numpy", "from .exact import parts", "from . import exact", "import liquid_ssm.oracle.exact"]
)
def test_the_check_allows_the_oracle_itself(source: str) -> None:
    assert not foreign_imports(source)


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_no_file_imports_the_rest_of_the_package(path: Path) -> None:
    assert foreign_imports(path.read_text(encoding="utf-8")) == []


# A stand-in for the package with no path of its own: `import liquid_ssm.systems` cannot succeed.
ALONE = """
import importlib, pathlib, sys, types
from importlib.util import module_from_spec, spec_from_file_location

package = sys.modules["liquid_ssm"] = types.ModuleType("liquid_ssm")
package.__path__ = []
folder = pathlib.Path(sys.argv[1])
spec = spec_from_file_location(
    "liquid_ssm.oracle", folder / "__init__.py", submodule_search_locations=[str(folder)]
)
module = sys.modules["liquid_ssm.oracle"] = module_from_spec(spec)
spec.loader.exec_module(module)
for path in sorted(folder.glob("*.py")):
    if path.stem != "__init__":
        importlib.import_module(f"liquid_ssm.oracle.{path.stem}")
loaded = sorted(name for name in sys.modules if name.partition(".")[0] in ("liquid_ssm", "oracle", "backends"))
print(*loaded)
"""


def test_every_module_loads_without_the_rest_of_the_package(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(FOLDER)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    modules = {f"liquid_ssm.oracle.{path.stem}" for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    assert loaded == {"liquid_ssm", "liquid_ssm.oracle", *modules}
