"""Fast and wrong backends, installed as packages are: refused with their error, and caught when they change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RIGHT = """
import numpy as np
from liquid_ssm.backend import Backend, Capabilities

NumPy = None

class Planted(Backend):
    name = "planted"
    capabilities = Capabilities(primitives={"scan": ("diagonal",)}, dtypes=("float32", "float64"))

    def scan(self, system, u, state=None, *, liquid):
        # The recurrence in complex128, whatever u has: right, and no slower than a loop need be.
        a, b, c = (np.asarray(p, np.complex128) for p in (system.A_bar, system.B_bar, system.C))
        x = np.zeros((*u.shape[:2], a.shape[1]), np.complex128) if state is None else np.array(state, np.complex128)
        y = np.empty(u.shape)
        for k in range(u.shape[2]):
            drive = b * u[:, :, k, None]
            x = (a + drive) * x + drive if liquid else a * x + drive
            y[:, :, k] = system.weight * (c * x).real.sum(axis=-1)
        return self.spoil(y).astype(u.dtype), x.astype(np.result_type(u.dtype, np.complex64))

    def spoil(self, y):
        return y
"""

# One change each, which no glance at the output shows.
FAST_AND_WRONG = """
    def scan(self, system, u, state=None, *, liquid):
        c = system.weight * (system.C * system.B_bar).real.sum(axis=-1)[None, :, None]
        return (c * u).astype(u.dtype), np.zeros((*u.shape[:2], system.n_modes), np.result_type(u.dtype, np.complex64))
"""
SMALL_ERROR = """
    def spoil(self, y):
        return y * (1 + 1e-9)
"""
ONE_RESIDUE = """
    def spoil(self, y):
        return y * (1 + (1e-3 if y.shape[2] % 128 == 64 else 0))
"""
# Right, and so slow that the other one is the fastest on any machine.
SNAIL = """
class Snail(Planted):
    name = "snail"

    def spoil(self, y):
        import time
        time.sleep(0.02)
        return y
"""
ONE_ROW = """
    def spoil(self, y):
        y[1:2, :1] *= 1.001
        return y
"""
RAISES = """
    def spoil(self, y):
        raise RuntimeError("the planted backend is broken")
"""
NOT_A_NUMBER = """
    def spoil(self, y):
        y[0, 0, -1] = np.nan
        return y
"""
SHORT = """
    def spoil(self, y):
        return y[:, :, :-1]
"""
OTHER_DTYPE = """
    def scan(self, system, u, state=None, *, liquid):
        y, x = super().scan(system, u, state, liquid=liquid)
        return y.astype(np.float32), x
"""

SCRIPT = """
import json, logging, sys
import numpy as np
import liquid_ssm as ls
from liquid_ssm.problem import ModeSpec, Problem

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("liquid_ssm").addHandler(handler)
logging.getLogger("liquid_ssm").setLevel(logging.INFO)
length = int(sys.argv[1])
problem = Problem(ModeSpec("liquid"), "diagonal", 4, 2, 3, length, "float64")
import liquid_ssm.registry as registry
found = registry._targets()
for name in [n for n in found if n not in sys.argv[2:]]:
    del found[name]
choice = ls.select(problem)
print(json.dumps({
    "backend": choice.backend,
    "new": choice.new,
    "reasons": choice.reasons,
    "candidates": {c.name: [c.status, c.reason, c.error] for c in choice.candidates},
    "log": lines,
}))
"""


class Installed:
    """A package with one backend, in a folder of its own, and processes that see it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder / "site", folder / "cache"
        self.folder.mkdir()

    def install(self, change: str, version: str = "1.0", beside: str = "") -> None:
        for old in self.folder.glob("*.dist-info/*"):
            old.unlink()
        for old in self.folder.glob("*.dist-info"):
            old.rmdir()
        body = RIGHT.rstrip() if "def scan" not in change or "super()" in change else RIGHT.partition("    def scan")[0]
        base = body.replace("class Planted(Backend)", "class Right(Backend)") if "super()" in change else body
        tail = "\n\nclass Planted(Right):\n" if "super()" in change else "\n"
        (self.folder / "planted_backend.py").write_text(base + tail + change + beside, encoding="utf-8")
        info = self.folder / f"planted-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: planted\nVersion: {version}\n", encoding="utf-8")
        target = "[liquid_ssm.backends]\nplanted = planted_backend:Planted\n"
        target += "snail = planted_backend:Snail\n" if beside else ""
        (info / "entry_points.txt").write_text(target, encoding="utf-8")
        (info / "RECORD").write_text("", encoding="utf-8")

    def select(self, length: int = 100, keep: tuple[str, ...] = ("numpy", "planted")) -> dict:
        environment = {
            **os.environ, "PYTHONPATH": str(self.folder), "LIQUID_SSM_CACHE_DIR": str(self.cache),
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(length), *keep],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def installed(tmp_path):
    return Installed(tmp_path)


def test_a_right_one_is_a_candidate_like_any_other(installed):
    installed.install("")
    found = installed.select()
    assert found["candidates"]["planted"][0] in ("chosen", "passed")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (FAST_AND_WRONG, "refused", "times the derived bound"),
        (SMALL_ERROR, "refused", "times the derived bound"),
        (ONE_ROW, "refused", "times the derived bound"),
        (RAISES, "failed", "RuntimeError: the planted backend is broken"),
        (NOT_A_NUMBER, "failed", "not finite"),
        (SHORT, "refused", "its output has shape"),
        (OTHER_DTYPE, "refused", "its output has dtype float32"),
    ],
)
def test_a_wrong_one_is_refused_with_its_error_shown(installed, change, status, words):
    installed.install(change)
    found = installed.select()
    assert found["backend"] == "numpy"
    assert found["candidates"]["planted"][0] == status
    assert words in found["candidates"]["planted"][1]
    if "bound" in words:
        assert found["candidates"]["planted"][2] > 1e-10


def test_one_that_is_wrong_at_one_residue_of_the_length_is_caught_at_another(installed):
    installed.install(ONE_RESIDUE, beside=SNAIL)
    found = installed.select(length=200, keep=("planted", "snail"))
    status, reason, error = found["candidates"]["planted"]
    assert status == "refused"
    assert "at length 192" in reason
    assert 1e-4 < error < 1e-2
    assert found["backend"] == "snail"


def test_a_version_that_turns_wrong_is_verified_again(installed):
    installed.install("")
    first = installed.select()
    assert first["new"]
    again = installed.select()
    assert not again["new"]
    assert again["backend"] == first["backend"]

    installed.install(SMALL_ERROR, "1.1")
    found = installed.select()
    assert found["new"]
    assert any("third-party backends" in reason for reason in found["reasons"])
    assert any("third-party backends" in line for line in found["log"])
    assert found["candidates"]["planted"][0] == "refused"
    assert found["backend"] == "numpy"
