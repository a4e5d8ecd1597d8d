"""Order, budget, noise and messages of a selection, with a clock of its own where time decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.certificate_store import CertificateStore
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.rounding_errors import rounding_models
from liquid_ssm.selection import choose
from liquid_ssm.selection.choose import Selection, _alike, _for_forward, _Tried, verdict
from liquid_ssm.selection.contenders import Contender, contenders
from liquid_ssm.selection.data import canonical
from liquid_ssm.selection.truth import Finding
from liquid_ssm.selection.verification import sweep_lengths
from liquid_ssm.timing import Timing

PROBLEM = Problem(ModeSpec("liquid"), "diagonal", 2, 2, 4, 40, "float64")


def run(problem=PROBLEM, **options):
    return Selection(canonical(problem), validators={"numpy": np.__version__}, **options).run()


def timing(median, low=None, high=None, runs=5):
    return Timing(median, low or median, high or median, runs)


def test_noise_does_not_flip_a_choice():
    assert _alike(timing(1.05), timing(1.0))
    assert not _alike(timing(1.2), timing(1.0))
    assert _alike(timing(1.2, 1.0, 1.4), timing(1.0, 0.9, 1.1))
    assert not _alike(timing(1.2, 1.0, 1.4, runs=1), timing(1.0, 0.9, 1.1))
    assert not _alike(timing(1.5, 0.9, 2.0), timing(1.0, 0.9, 1.1))


def chosen_among(medians, incumbent=None):
    """Who is taken when the backends of NumPy arrays take that long."""
    selection = Selection(canonical(PROBLEM), validators={}, incumbent=incumbent)
    able = [c for c in contenders(PROBLEM, other_dtypes=False) if isinstance(c, Contender)]
    return selection._fastest([_Tried(c, timing=timing(medians[c.name])) for c in able]).contender.name


def test_outputs_are_judged_as_they_are_computed():
    """Chunks and pieces of time are those of outputs, of gradients others; some backends have one way for both."""
    problem = Problem(ModeSpec("s4"), "diagonal", 4, 4, 32, 4096, "float32", gradient=True, arrays="torch")
    found = {c.name: c for c in contenders(problem, other_dtypes=False) if isinstance(c, Contender)}
    numba, torch = found["numba"], found["torch"]
    assert _for_forward(numba).problem == replace(problem, gradient=False)
    assert _for_forward(torch).problem == problem
    outputs = rounding_models(numba.backend, _for_forward(numba).problem)
    assert [model.linear_chunk is None for model in outputs] == [False]
    assert _for_forward(replace(torch, problem=replace(problem, arrays="numpy"))).problem.gradient is False


def test_who_was_chosen_before_stays_if_others_are_as_fast():
    alike = {"numba": 1.05, "scipy": 1.0, "numpy": 1.08}
    assert chosen_among(alike) == "numba"  # the first in the fixed order
    assert chosen_among(alike, "numpy") == "numpy"
    assert chosen_among(alike, "scipy") == "scipy"
    apart = {"numba": 1.5, "scipy": 1.0, "numpy": 2.0}
    assert chosen_among(apart, "numpy") == "scipy"


@pytest.mark.parametrize(
    ("finding", "tolerance", "words"),
    [
        (Finding(1e-9, 1e-8, 0.1, 3), None, ""),
        (Finding(1e-9, 1e-8, 1.5, 3), None, "1.5 times the derived bound"),
        (Finding(1e-9, 1e-8, np.nan, 3), None, "times the derived bound"),
        (Finding(1e-9, np.inf, 0.0, 3), None, "inconclusive"),
        (Finding(1e-9, 1e-6, 0.1, 3), 1e-6, ""),
        (Finding(1e-9, 1e-2, 0.1, 3), 4e-9, ""),
        (Finding(1.1e-9, 1e-2, 0.1, 3), 4e-9, "the tolerance 4e-09 asks for"),
        (Finding(1e-9, 1e-10, 1.5, 3), 1.0, "times the derived bound"),
    ],
)
def test_verdicts(finding, tolerance, words):
    status, reason = verdict(finding, tolerance)
    assert (status == "refused") == bool(words)
    assert words in reason


def test_the_error_of_the_first_steps_is_no_proof_for_the_others():
    finding = Finding(1e-9, 1e-2, 0.1, 3)
    assert verdict(finding, 1e-6) == ("", "")
    status, reason = verdict(finding, 1e-6, whole=False)
    assert status == "refused"
    assert "first steps only" in reason
    assert verdict(replace(finding, bound=1e-7), 1e-6, whole=False) == ("", "")


def test_every_backend_is_a_candidate_with_a_reason():
    found = run()
    assert [c.name for c in found.candidates] == [
        "numba", "scipy", "numpy", "numba-wide-state", "triton", "torch", "torch-split-real", "keops"
    ]  # fmt: skip
    assert all(c.reason for c in found.candidates)
    for c in found.candidates:
        if c.status in ("chosen", "passed"):
            assert 0 < c.error < c.bound < 1e-10
            assert 0 < c.error_over_bound <= 1
            assert 0 < c.seconds_min <= c.seconds <= c.seconds_max
            assert c.compile_seconds >= 0


def test_a_tolerance_brings_other_dtypes(only):
    only("numpy")
    assert [c.name for c in run(tolerance=1e-3).candidates] == ["numpy", "numpy:float32"]
    found = run(tolerance=1e-10)
    assert found.backend == "numpy"
    assert "rounding one number of y to float32" in found.candidates[1].reason
    with pytest.raises(ls.BackendRejected, match="within the tolerance 1e-16") as caught:
        run(tolerance=1e-16)
    assert [c.status for c in caught.value.candidates] == ["refused", "refused"]


@pytest.mark.parametrize(
    "needs", [{"state": True}, {"gradient": True}, {"state": True, "length": 1}, {"dtype": "float32"}]
)
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_every_structure_with_everything_that_is_asked_for(structure, needs, only):
    only("numpy", "scipy")
    found = run(replace(PROBLEM, structure=structure, **needs))
    assert found.backend in ("numpy", "scipy")
    assert found.oracle["coverage"].startswith("2 of 2 rows") or "1 of 2 rows" in found.oracle["coverage"]


def test_a_small_budget_leaves_others_out_and_still_verifies_one(only):
    only("numpy", "scipy", "numba")
    found = run(replace(PROBLEM, batch=8, n_channels=16, length=1500), budget=1e-3)
    statuses = sorted(c.status for c in found.candidates)
    assert statuses[0] == "chosen"
    assert "not tried" in statuses
    reason = next(c.reason for c in found.candidates if c.status == "not tried")
    assert "budget" in reason or "by another" in reason


def test_quarantined_backends_are_refused(only):
    only("numpy", "scipy")
    found = run(excluded=[("numpy", "it was wrong")])
    assert found.backend == "scipy"
    assert found.candidates[1].reason == "quarantined: it was wrong"


def test_nothing_that_loads_torch_is_asked_for_numpy_arrays():
    names = [c.name for c in contenders(PROBLEM, other_dtypes=False) if isinstance(c, Contender)]
    assert names == ["numba", "scipy", "numpy"]


@pytest.mark.parametrize("length", [1, 2, 3, 64, 100, 128, 1000, 5000, 10**6])
def test_the_sweep_has_every_residue_once(length):
    lengths = sweep_lengths(length)
    low = 1 << length.bit_length() >> 1
    assert len(lengths) == len(set(lengths)) == min(128, low)
    assert len({n % 128 for n in lengths}) == len(lengths)
    assert min(lengths) == min(low, 4096)
    if low >= 128:
        assert lengths[1] % 128 == 64


def test_select_takes_data_and_keeps_certificates_for_calls(only, u, system):
    only("numpy")
    continuous = ls.initialize("s4d-lin", n_channels=2, n_state=8, dt_min=1e-2, dt_max=1e-1, seed=0)
    problem = Problem(ModeSpec("liquid"), "diagonal", 2, 2, 4, 40, "float64")
    choice = ls.select(problem, system=continuous, u=u)
    assert choice.new
    assert choice.certificate.domain.dt is not None
    assert not ls.select(problem, system=continuous, u=u).new
    y = ls.apply(continuous.discretize("bilinear"), u, mode="liquid", backend="certified-only")
    assert y.shape == u.shape
    before = len(list(CertificateStore().all()))
    ls.select(problem, backends=("numpy",))
    assert len(list(CertificateStore().all())) == before
    assert [c.name for c in ls.select(problem, backends="numpy").candidates] == ["numpy"]
    assert "numpy" in choice.explain()
    for change, words in (
        ({"length": 39}, "length is 39 in the problem and 40 in the data"),
        ({"dtype": "float32"}, "dtype is float32 in the problem and float64"),
        ({"structure": "dplr"}, "structure is dplr"),
    ):
        with pytest.raises(ls.ShapeError, match=words):
            ls.select(replace(problem, **change), system=continuous, u=u)
    for options in ({"tolerance": 0.0}, {"budget": -1.0}):
        with pytest.raises(ls.ParameterError, match="must be positive"):
            ls.select(problem, **options)
    with pytest.raises(ls.ParameterError, match="every size must be at least 1"):
        ls.select(replace(problem, batch=0))


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_gradients_that_are_zero_are_within_their_bound(structure, only):
    """Of one step from rest the transition has none."""
    only("numpy")
    problem = replace(PROBLEM, structure=structure, spec=ModeSpec("s4"), length=1, gradient=True)
    assert run(problem).backend == "numpy"
    assert run(problem, tolerance=1e-10).backend == "numpy"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


class Compiling:
    """A backend that compiles for some seconds when it is first called at a length."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.compiled, self.known = clock, seconds, 0.0, set()

    def compile_seconds(self):
        return self.compiled

    def call(self, length):
        if length not in self.known:
            self.known.add(length)
            self.compiled += 20
            self.clock.now += 20
        self.clock.now += self.seconds * length


def timed(monkeypatch, clock, seconds, **options):
    """A selection whose contenders take `seconds` per step, by name, and what is tried."""
    selection = Selection(canonical(PROBLEM), validators={}, clock=clock, **options)
    selection.start = clock()
    monkeypatch.setattr(selection, "_call", lambda c, system, u, **_: lambda: c.backend.call(u.shape[-1]))
    return selection, [
        _Tried(Contender(name, Compiling(clock, took), PROBLEM), estimate=0.01) for name, took in seconds.items()
    ]


def test_an_estimate_is_free_of_what_any_piece_compiles(monkeypatch):
    monkeypatch.setattr(choose, "_SHORT", 10)
    clock = Clock()
    selection, (tried,) = timed(monkeypatch, clock, {"numba": 1e-4})
    selection._estimate(tried, np.inf)
    assert tried.estimate == pytest.approx(40e-4)  # all rows of the problem, which is no larger than a piece
    assert tried.compiling == pytest.approx(40)  # at 10 steps and at 40
    # Once while compiling, and then three times.
    assert selection.left == pytest.approx(selection.budget - 4 * (10 + 40) * 1e-4)


def test_one_call_that_is_disturbed_decides_nothing(monkeypatch):
    clock = Clock()
    selection, (tried,) = timed(monkeypatch, clock, {"numba": 1e-4})
    delays = iter([0.0, 0.03, 0.0, 0.03])
    monkeypatch.setattr(tried.contender.backend, "call", lambda length: clock.advance(1e-4 * length + next(delays)))
    selection._estimate(tried, np.inf)
    assert tried.estimate == pytest.approx(40e-4)


def test_what_checks_compile_is_not_of_the_budget(monkeypatch):
    clock = Clock()
    selection, (tried,) = timed(monkeypatch, clock, {"numba": 1e-4})
    with selection._compiling(tried):
        tried.contender.backend.call(7)
    assert selection.left == pytest.approx(selection.budget - 7e-4)


def test_whole_calls_decide_among_those_that_are_close(monkeypatch):
    clock = Clock()
    selection, tried = timed(monkeypatch, clock, {"numba": 1e-4, "scipy": 4e-4, "numpy": 1e-4})
    tried[0].estimate, tried[2].estimate = 0.025, 0.031
    selection._refine(tried)
    assert [t.estimate for t in tried] == pytest.approx([40e-4, 160e-4, 0.031])  # the last is not close
    assert selection.left == pytest.approx(selection.budget - 2 * (40 + 160) * 1e-4)


def test_who_is_too_slow_is_not_asked_for_the_whole_length(monkeypatch):
    """What slow backends take for a long piece was missing afterwards to find the faster of two others."""
    monkeypatch.setattr(choose, "_SHORT", 4)
    monkeypatch.setattr(choose, "_LONGER", 10)
    clock = Clock()
    selection, (fast, slow) = timed(monkeypatch, clock, {"numba": 1e-4, "torch": 1.0e-2})
    for t in (fast, slow):
        t.contender.backend.known.update({4, 10, 40})
        selection._estimate(t, 40e-4 if t is slow else np.inf)
    assert (fast.status, fast.estimate) == ("", pytest.approx(40e-4))
    assert slow.status == "not tried"
    assert "4 of 4 rows take about 0.4 s, all of them 4 ms by another" in slow.reason
    of_fast, of_slow = (4 * 4 + 3 * 10 + 3 * 40) * 1e-4, (4 * 4 + 10) * 1e-2
    assert selection.left == pytest.approx(selection.budget - of_fast - of_slow)


def test_whole_calls_decide_although_little_of_the_budget_is_left(monkeypatch):
    clock = Clock()
    selection, tried = timed(monkeypatch, clock, {"numba": 1e-4, "scipy": 4e-4}, budget=1.0)
    clock.advance(1.0)
    selection._refine(tried)
    assert [t.estimate for t in tried] == pytest.approx([40e-4, 160e-4])


def test_no_whole_calls_where_they_take_too_much_of_the_budget(monkeypatch):
    selection, tried = timed(monkeypatch, Clock(), {"numba": 1e-4, "scipy": 4e-4}, budget=0.05)
    selection._refine(tried)
    assert [t.estimate for t in tried] == [0.01, 0.01]
    selection.budget = 1.0
    selection._refine(tried[:1])
    assert tried[0].estimate == 0.01  # one has nobody to be compared with
