"""`select`: what it takes, what it answers, how long it may take, and what another process makes of its certificate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.certificate_store import CertificateStore
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.selection import auto

PROBLEM = Problem(ModeSpec("liquid"), "diagonal", 2, 2, 4, 40, "float64")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    auto.forget()
    yield tmp_path / "cache"
    auto.forget()


def test_named_backends_in_their_order_and_nothing_kept():
    choice = ls.select(PROBLEM, backends=("scipy", "numpy"))
    assert [c.name for c in choice.candidates] == ["scipy", "numpy"]
    assert choice.new
    assert not list(CertificateStore().all())
    with pytest.raises(ls.ParameterError, match="'numpy'"):
        ls.select(PROBLEM, backends=("nunpy",))


@pytest.mark.parametrize("budget", [0, -1.0, float("nan")])
def test_budgets_are_positive(budget):
    with pytest.raises(ls.ParameterError, match=r"budget is .*; it must be positive"):
        ls.select(PROBLEM, budget=budget)


def test_a_budget_without_end_and_a_tolerance_without_any():
    choice = ls.select(PROBLEM, tolerance=float("inf"), budget=float("inf"), backends=("numpy",))
    assert {c.name: c.status for c in choice.candidates}.keys() == {"numpy", "numpy:float32"}
    assert "not tried" not in {c.status for c in choice.candidates}


def test_an_integrator_is_not_selected_for():
    with pytest.raises(ls.ParameterError, match="one way of being computed"):
        ls.select(replace(PROBLEM, structure="integrator"))


def test_a_signal_that_leaves_its_range_is_an_error_of_the_signal():
    grows = ls.DiagonalSystem(np.full((2, 4), 2.0 + 0j), np.ones((2, 4)), np.ones((2, 4)))
    with pytest.raises(ls.UnstableRecurrence) as caught:
        ls.select(replace(PROBLEM, length=3000), system=grows, u=np.ones((2, 2, 3000)), backends=("numpy", "scipy"))
    assert caught.value.step > 0


@pytest.mark.parametrize("scale", [0.0, 5e-324, 1e-310, 1e300])
def test_inputs_at_the_ends_of_the_range(scale):
    """Of s4, which is linear: nothing may overflow on the way to a certificate."""
    u = scale * np.sign(np.random.default_rng(0).normal(size=(2, 2, 40)))
    choice = ls.select(replace(PROBLEM, spec=ModeSpec("s4")), u=u, backends=("numpy", "scipy"))
    assert choice.certificate.problem["largest |b u|"] in choice.certificate.domain.drive


@pytest.mark.parametrize(
    ("structure", "mode", "needs"),
    [
        ("diagonal", "s4", {}),
        ("diagonal", "pb", {"gradient": True}),
        ("dplr", "liquid", {"state": True}),
        ("dplr", "pb", {"gradient": True}),
    ],
)
def test_a_warm_selection_takes_at_most_five_seconds(structure, mode, needs):
    problem = Problem(ModeSpec(mode), structure, 4, 8, 32, 1000, "float64", **needs)
    # Other processes may be busy at the same time: the quickest of three counts.  The first is cold.
    taken = []
    for _ in range(3):
        certificate = ls.select(problem, again=True).certificate
        compiling = sum(c.compile_seconds or 0.0 for c in certificate.candidates)
        taken.append(certificate.problem["seconds"] - compiling)
        if taken[-1] <= 5:
            break
    assert min(taken) <= 5


def test_a_small_budget_ends_it_early():
    problem = replace(PROBLEM, batch=4, n_channels=8, n_modes=32, length=3000)
    ls.select(problem, again=True, backends=("numba",))  # compiles
    certificate = ls.select(problem, budget=0.2, again=True).certificate
    assert certificate.problem["budget"] == 0.2
    statuses = {c.name: c.status for c in certificate.candidates}
    assert statuses[certificate.backend] == "chosen"
    assert "steps" in certificate.oracle["coverage"]
    assert "all 3000 steps" not in certificate.oracle["coverage"]


def test_what_compiles_is_not_of_the_budget():
    """Else the compiled backend would be left out on every fresh machine, and the certificate kept."""
    from liquid_ssm.selection.choose import Selection
    from liquid_ssm.selection.data import canonical

    now = [0.0]
    selection = Selection(canonical(PROBLEM), budget=5.0, validators={}, clock=lambda: now[0])
    selection.start = 0.0
    now[0] = 7.0
    assert selection.left == -2.0
    selection.compiled = 6.0
    assert selection.left == 4.0


OTHER = """
import json, logging, sys
import numpy as np
import liquid_ssm as ls

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("liquid_ssm").addHandler(handler)
logging.getLogger("liquid_ssm").setLevel(logging.INFO)
from liquid_ssm.selection import choose
choose.Selection.run = lambda self: sys.exit("a selection was made")
system = ls.initialize("s4d-lin", n_channels=2, n_state=8, seed=0).discretize("bilinear")
u = np.random.default_rng(0).normal(size=(1, 2, 24))
ls.apply(system, u, mode="liquid")
y = ls.apply(system, u, mode="liquid", backend="certified-only")
print(json.dumps({"log": lines, "y": y.tolist(), "torch": "torch" in sys.modules}))
"""


def test_another_process_takes_the_certificate_without_a_selection(cache):
    system = ls.initialize("s4d-lin", n_channels=2, n_state=8, seed=0).discretize("bilinear")
    u = np.random.default_rng(0).normal(size=(1, 2, 24))
    make = OTHER.replace('choose.Selection.run = lambda self: sys.exit("a selection was made")', "")
    answers = [process(make), process(OTHER)]
    (certificate,) = (certificate for _, certificate in CertificateStore().all())
    for answer in answers:
        assert f"liquid: {certificate.backend} by certificate {certificate.id}" in answer["log"]
        assert not answer["torch"]
        assert (answer["y"] == ls.apply(system, u, mode="liquid", backend=certificate.backend)).all()


def process(script):
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
