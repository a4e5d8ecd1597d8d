"""The worked examples of the documentation do what it says they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from liquid_ssm.problem import DTYPES
from liquid_ssm.testing.certify import certify

FOLDER = Path(__file__).parents[1] / "docs" / "examples"
PAGE = FOLDER.parent / "certify.md"


@pytest.fixture(autouse=True)
def there(monkeypatch):
    """Backends are run from their folder, and leave nothing in it."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = set(FOLDER.iterdir())
    yield
    assert set(FOLDER.iterdir()) == before


def test_the_wrong_scan_is_rejected_with_a_minimal_example():
    report = certify("forgetful_scan:ForgetfulScan", dtypes=["float32"])
    assert not report.passed
    first = report.failures[0]
    assert str(first.check) == "initial-state [liquid, diagonal, float32]"
    assert first.kind == "violated"
    said, place, *example = first.message.splitlines()
    assert said.startswith("initial-state: started from a given state")
    # x = (1/2 + 1/2) 1 + 1/2 with the liquid term, (1/2) 1 + 1/2 without; y = 2 Re x.
    assert place.startswith("y is 2.0 at batch 0, channel 0, step 0, the exact value is 3.0: the error 1 is ")
    assert example[0].endswith("batch 1, H 1, M 1, L 1")
    # From rest it is right; the checks that carry a state, and no others, fail.
    carrying = ["initial-state", "steps", "steps-from-state", "pieces"]
    assert [outcome.check.property for outcome in report.failures] == carrying
    if PAGE.exists():
        assert "\n".join(example) in PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("dtype", DTYPES)
def test_torchs_associative_scan_passes(dtype):
    report = certify("associative_scan:AssociativeScan", max_examples=4, dtypes=[dtype])
    assert report.passed, report.table()
    assert report.verdict == "AssociativeScan: all 18 checks passed"


@pytest.mark.parametrize("page", ["README.md", "docs/torch.md", "docs/layers.md", "docs/from-published-code.md"])
def test_the_code_of_a_page_runs_from_top_to_bottom(page):
    text = (FOLDER.parents[1] / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    # As a reader runs it, who has not asked for Triton's slow interpreter.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", "".join(blocks)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
