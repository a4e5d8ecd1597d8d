"""The run of Gappa: what it reads from Gappa, what it refuses, and that a wrong constant or script is noticed."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from liquid_ssm.oracle.local_constants import LocalConstant, local_constants

PROOFS = Path(__file__).parents[2] / "proofs"


def _load_check() -> Any:
    spec = importlib.util.spec_from_file_location("proofs_check_run", PROOFS / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check = _load_check()
needs_gappa = pytest.mark.skipif(shutil.which("gappa") is None, reason=check.MISSING)

PRODUCT = (PROOFS / "complex_product.gappa").read_text(encoding="utf-8")
OUTPUT = """Results:
  |yr - Yr| in [0, 23b-25 {6.85453e-07, 2^(-20.4764)}]
  |yi - Yi| in [0, 1b-22 {2.38419e-07, 2^(-22)}]
"""


def entry(parts: tuple[float, ...] = (2.0, 2.0), **changes: Any) -> LocalConstant:
    fields = {"box": {}, "fused": False, "measure": "modulus", "dtype": "float32"} | changes
    return LocalConstant("complex_product", parts=parts, **fields)


def test_constants_are_read_in_unit_roundoffs_and_rounded_up():
    assert check.proved(OUTPUT, 2, "float32") == (11.5, 4.0)
    assert check.proved("Results:\n  |y - Y| in [0, 67108865b-50 {1, 2^(0)}]\n", 1, "float32") == (1 + 1 / 1024,)
    relative = "Results:\n  y -/ Y in [-3b-53 {-3.3e-16, -2^(-51.4)}, 1b-53 {1.1e-16, 2^(-53)}]\n"
    assert check.proved(relative, 1, "float64") == (3.0,)
    assert check.proved("Results:\n  |y - Y| in [0, 0]\n", 1, "float64") == (0.0,)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "Results:\n",
        OUTPUT.replace("  |yi - Yi|", "Warning: |yi - Yi|"),
        "Error: some properties were not satisfied:\n  BND(|yr - Yr|)\n",
        OUTPUT + "Error: some properties were not satisfied:\n  BND(|yi - Yi|), best: [1, 2]\n",
        "Results:\n  remaining results are pointless, anything can be proved.\n",
        "Error: the range of vr is an empty interval.\n",
        "Error: syntax error, unexpected '(' at line 2 column 9\n",
    ],
)
def test_what_gappa_did_not_prove_is_an_error(output):
    with pytest.raises(check.ProofError):
        check.proved(output, 2, "float32")


def test_a_script_is_changed_in_rounding_contraction_and_box_only():
    assert check.expand(PRODUCT, {}, fused=False, dtype="float32") == PRODUCT
    wide = check.expand(PRODUCT, {}, fused=False, dtype="float64")
    assert wide == PRODUCT.replace("ieee_32", "ieee_64")
    fused = check.expand(PRODUCT, {}, fused=True, dtype="float32")
    assert "mid" not in fused
    assert "yr = rnd((ar * br) - rnd(ai * bi));" in fused
    boxed = check.expand(PRODUCT, {"a": 2.0**-7, "br": 0.5}, fused=False, dtype="float32")
    assert "{ |ar| <= 0.0078125 /\\ |ai| <= 0.0078125 /\\ |br| <= 0.5 /\\ |bi| <= 1\n" in boxed


def test_unit_roundoffs_and_intervals_of_a_script_follow_the_entry():
    roots = (PROOFS / "butterfly.gappa").read_text(encoding="utf-8")
    assert "|wr - Wr| <= 1b-24 " in roots
    assert "|wr - Wr| <= 1b-53 " in check.expand(roots, {}, fused=False, dtype="float64")
    half_plane = (PROOFS / "bilinear.gappa").read_text(encoding="utf-8")
    boxed = check.expand(half_plane, {"Hr": (-0.125, 0.0)}, fused=False, dtype="float32")
    assert "{ Hr in [-0.125, 0] /\\ Hi in [0, 1]\n" in boxed


@pytest.mark.parametrize(
    ("script", "box", "said"),
    [
        (PRODUCT.replace("@rnd", "# @rnd"), {}, "@rnd"),
        (PRODUCT.replace("float<ieee_32, ne>;\n@mid", "float<ieee_32, zr>;\n@mid"), {}, "@rnd"),
        (PRODUCT.replace("@mid", "# @mid"), {}, "@mid"),
        (PRODUCT, {"c": 0.5}, "c, which the script has no hypothesis for"),
        (PRODUCT, {"ar": (0.0, 1.0)}, "for ar"),
    ],
)
def test_a_script_or_box_that_does_not_fit_is_refused(script, box, said):
    with pytest.raises(check.ProofError, match=said):
        check.expand(script, box, fused=False, dtype="float32")


def run_with(monkeypatch: pytest.MonkeyPatch, entries: list[LocalConstant], output: str) -> list[Any]:
    monkeypatch.setattr(check, "run_gappa", lambda script: output)
    return list(check.check(entries))


TWO = "Results:\n  |yr - Yr| in [0, 1b-23 {1.19209e-07, 2^(-23)}]\n  |yi - Yi| in [0, 1b-23 {1.19209e-07, 2^(-23)}]\n"


def test_a_changed_constant_is_a_problem_in_both_directions(monkeypatch):
    fine, smaller, larger = run_with(monkeypatch, [entry(), entry((1.5, 2.0)), entry((2.0, 2.5))], TWO)
    assert fine.problem == ""
    assert "--update" in smaller.problem
    assert "--update" in larger.problem


def test_a_bound_of_the_oracle_below_the_proof_is_a_problem(monkeypatch):
    (line,) = run_with(monkeypatch, [entry((4.0, 4.0))], TWO.replace("1b-23 {", "1b-22 {"))
    assert "below the proved constant 5.657" in line.problem
    assert "below" in str(line)


def test_a_proof_that_fails_is_a_problem_of_its_entry_alone(monkeypatch):
    def run(script: str) -> str:
        return "Error: some properties were not satisfied:\n" if "ieee_64" in script else TWO

    monkeypatch.setattr(check, "run_gappa", run)
    good, bad = check.check([entry(), entry(dtype="float64")])
    assert good.problem == ""
    assert bad.problem.startswith("not proved: Error")


def test_without_gappa_the_message_names_the_package(monkeypatch, capsys):
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    assert check.main([]) == 1
    assert "apt-get install gappa" in capsys.readouterr().err


def test_an_unknown_option_is_refused_with_the_usage(capsys):
    assert check.main(["--fix"]) == 1
    assert "--update" in capsys.readouterr().err


def test_problems_and_scripts_without_an_entry_set_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(check.shutil, "which", lambda name: "/usr/bin/gappa")
    monkeypatch.setattr(check, "local_constants", lambda: iter([entry()]))
    monkeypatch.setattr(check, "run_gappa", lambda script: TWO)
    assert check.main([]) == 1
    assert "scripts without an entry: accumulated_product" in capsys.readouterr().err
    monkeypatch.setattr(check.Path, "glob", lambda self, pattern: iter([PROOFS / "complex_product.gappa"]))
    assert check.main([]) == 0
    monkeypatch.setattr(check, "run_gappa", lambda script: "")
    assert check.main([]) == 1


def test_show_prints_the_script_that_is_run(capsys):
    assert check.main(["--show", "complex_product", "fused", "float64"]) == 0
    assert check.expand(PRODUCT, {}, fused=True, dtype="float64") in capsys.readouterr().out


# One box each, in float32; `nox -s proofs` takes them all.
FIRST = {(e.primitive, e.fused): e for e in reversed(list(local_constants())) if e.dtype == "float32"}


@needs_gappa
def test_gappa_proves_the_table():
    assert [str(line) for line in check.check(list(FIRST.values())) if line.problem] == []


@needs_gappa
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("yr = rnd(mid(ar * br) - rnd(ai * bi));", "yr = rnd(mid(ar * br) - ai * bi);"),
        ("Yi = ar * bi + ai * br;", "Yi = ar * bi - ai * br;"),
        ("|bi| <= 1\n", "|bi| <= 2\n"),
        ("|bi| <= 1\n", "|ai| <= 1\n"),
        ("|bi| <= 1\n", "|bi| <= 1 /\\ bi >= 2\n"),
        ("/\\ |yi - Yi| in ?", ""),
        ("yi = rnd(", "yi = mid("),
    ],
    ids=["rounding lost", "sign", "wider box", "no box", "empty box", "goal lost", "fused too far"],
)
def test_a_changed_script_is_noticed(tmp_path, monkeypatch, old, new):
    assert old in PRODUCT
    (tmp_path / "complex_product.gappa").write_text(PRODUCT.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(check, "FOLDER", tmp_path)
    rows = [e for e in local_constants() if e.primitive == "complex_product" and not e.box]
    assert any(line.problem for line in check.check(rows))
