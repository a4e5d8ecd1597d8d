"""The proved constants agree with the bounds of the oracle, and no floats found break either (docs/proofs.md).

The arithmetic attacked here is the scripts' own: their assignments are run as Python, so that what is attacked is
what Gappa proved. float32 runs in NumPy's longdouble, float64 in rationals.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from liquid_ssm.oracle.local_bounds import PRIMITIVES
from liquid_ssm.oracle.local_constants import DTYPES, PROVED, LocalConstant, box_text, local_constants
from liquid_ssm.oracle.rounding import RoundingModel

PROOFS = Path(__file__).parents[2] / "proofs"
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
ENTRIES = list(local_constants())
# Boxes whose operands the scripts do not simply round: expm1 and the like, a root of unity, a quotient of parts.
SPECIAL = {"butterfly", "exponential_power", "complex_quotient", "bilinear", "phi1_real", "phi1_numerator"}
RELATIVE = {"exponential_power", "phi1_real", "phi1_numerator"}


def _load_check() -> Any:
    spec = importlib.util.spec_from_file_location("proofs_check", PROOFS / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check = _load_check()


def name_of(entry: LocalConstant) -> str:
    return f"{entry.primitive}-{'fused' if entry.fused else 'separate'}-{entry.dtype}-{box_text(entry.box)}"


@pytest.mark.parametrize("entry", ENTRIES, ids=name_of)
def test_the_bounds_of_the_oracle_are_not_below_what_is_proved(entry):
    assert entry.proved <= entry.allowed


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_every_primitive_is_proved_in_every_variant(primitive):
    script = (PROOFS / f"{primitive}.gappa").read_text(encoding="utf-8")
    wanted = {(fused, dtype) for fused in ((False, True) if "mid(" in script else (False,)) for dtype in DTYPES}
    assert {(e.fused, e.dtype) for e in ENTRIES if e.primitive == primitive} == wanted
    assert {path.stem for path in PROOFS.glob("*.gappa")} == set(PRIMITIVES)


def test_the_constant_that_issue_3_names():
    step = next(e for e in ENTRIES if e.primitive == "liquid_step")
    assert (step.box, step.fused, step.dtype, step.parts) == ({}, False, "float32", (11.5, 11.5))


# What the recurrences rest on: a bound of the oracle that lost a fifth would be below what is proved in some box.
SHARP = [name for name in PRIMITIVES if "step" in name and name not in {"elementary_step", "running_sum_step"}]


@pytest.mark.parametrize("primitive", [*SHARP, "accumulated_product", "real_times_complex"])
def test_some_box_is_nearly_exhausted(primitive):
    assert min(e.allowed / e.proved for e in ENTRIES if e.primitive == primitive) <= 1.5


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_not_knowing_about_contraction_never_tightens_a_bound(primitive):
    step, rng = PRIMITIVES[primitive], np.random.default_rng(0)
    operands = _operands(primitive, Sampler(rng, {**step.fixed}, "float32", 50))
    models = [RoundingModel.of_dtype("float32", pairwise=True, fused=fused) for fused in (None, False, True)]
    unknown, separate, fused = (step.bound(model, **operands).ravel() for model in models)
    assert (unknown * (1 + 2.0**-20) >= np.maximum(separate, fused)).all()


class Sampler:
    """Random and adversarial operands of one box: near its corners, with long mantissas, and anywhere inside."""

    def __init__(self, rng: np.random.Generator, box: Any, dtype: str, size: int) -> None:
        self.rng, self.box, self.dtype, self.size = rng, box, dtype, size

    def unit(self) -> Any:
        """In [-1, 1]."""
        close = 1 - self.rng.integers(0, 64, self.size) * 2.0 * UNIT[self.dtype]
        near = 1 - self.rng.random(self.size) * 2.0 ** -self.rng.integers(1, 12, self.size)
        inside = self.rng.random(self.size)
        kind = self.rng.integers(0, 3, self.size)
        return np.choose(kind, [close, near, inside]) * self.rng.choice([-1.0, 1.0], self.size)

    def part(self, name: str) -> Any:
        """One part of an operand, or a real one, as an exact float of the dtype."""
        limit = self.box.get(name, self.box.get(name[:-1], 1.0))
        if isinstance(limit, tuple):
            middle, half = (limit[0] + limit[1]) / 2, (limit[1] - limit[0]) / 2
            values = middle + half * self.unit()
            return np.clip(values.astype(self.dtype), *limit).astype(float)
        return np.clip((limit * self.unit()).astype(self.dtype).astype(float), -limit, limit)

    def relative(self, exact: Any, units: float) -> Any:
        """A number within so many unit roundoffs of each exact one, a little inside for the rounding here."""
        return exact * (1 + np.asarray(self.unit(), exact.dtype) * units * UNIT[self.dtype] * (1 - 2.0**-8))


def _operands(primitive: str, sample: Sampler) -> dict[str, Any]:
    """Arguments of the oracle's bound."""
    result = {}
    for name in PRIMITIVES[primitive].operands.split():
        stem = name.rstrip("*")
        complex_parts = name != stem
        result[stem] = sample.part(stem + "r") + 1j * sample.part(stem + "i") if complex_parts else sample.part(stem)
    if primitive == "butterfly":
        # a root of unity; the table holds the nearest float
        result["W"] = result["W"] / np.abs(result["W"])
    return result


def _inputs(primitive: str, operands: dict[str, Any], sample: Sampler) -> dict[str, Any]:
    """Variables that the script does not define, from the operands."""
    if primitive not in SPECIAL:
        parts = {}
        for stem, values in operands.items():
            if np.iscomplexobj(values):
                parts |= {f"{stem}r_": values.real, f"{stem}i_": values.imag}
            else:
                parts[f"{stem}_"] = values
        return parts
    wide = {
        stem: np.asarray(v, np.clongdouble if np.iscomplexobj(v) else np.longdouble) for stem, v in operands.items()
    }
    if primitive == "butterfly":
        W, v, z = wide["W"], wide["v"], wide["z"]
        w = W.astype(np.result_type(sample.dtype, np.complex64)).astype(np.clongdouble)
        parts = {"W": W, "w": w, "v": v, "z": z}
        return {
            name + end: part
            for stem, value in parts.items()
            for name, part in ((stem + "r", value.real), (stem + "i", value.imag))
            for end in ("" if stem == "W" else "_",)
        }
    if primitive == "complex_quotient":
        n, dr, R = wide["n"], wide["dr"], wide["R"]
        di = (dr * R).astype(sample.dtype).astype(np.longdouble)
        return {"nr_": n.real, "ni_": n.imag, "dr_": dr, "di_": np.clip(di, -dr, dr)}
    if primitive == "bilinear":
        return {"Hr": wide["Hr"], "Hi": wide["Hi"]}
    if primitive == "phi1_real":
        exact = np.expm1(wide["z"])
        return {"z_": wide["z"], "E": exact, "e": sample.relative(exact, 2)}
    if primitive == "phi1_numerator":
        a, b = wide["a"], wide["b"]
        exact = {"M": np.expm1(a), "C": np.cos(b), "H": np.sin(b / 2), "E": np.exp(a), "S": np.sin(b)}
        return exact | {name.lower(): sample.relative(value, 2) for name, value in exact.items()}
    # exponential_power: n = 37 keeps n log a inside the box
    n = np.full(sample.size, 37.0, np.longdouble)
    L, K = wide["T"] / n, wide["Y"] / n
    l, k = sample.relative(L, 8), sample.relative(K, 8)  # noqa: E741
    d = (n * l).astype(sample.dtype).astype(np.longdouble) - n * L
    q = np.asarray(sample.unit(), np.longdouble)
    return {"n_": n, "L": L, "K": K, "l": l, "k": k, "q": q, "f": sample.relative(1 + d + q * d * d, 4)}


def run_script(script: str, inputs: dict[str, Any], rnd: Callable[[Any], Any]) -> list[Any]:
    """Errors of the goals of a script, in its own order: y − Y, or (y − Y)/Y for a relative one."""
    text = re.sub(r"#.*|@.*", "", script)
    values = dict(inputs)
    for name, expression in re.findall(r"(\w+) = ([^;]+);", text.partition("\n{")[0]):
        values[name] = eval(expression, {"rnd": rnd, "mid": rnd}, values)
    goals = re.findall(r"\|(\w+) - (\w+)\| in \?|(\w+) -/ (\w+) in \?", text)
    assert goals
    errors = []
    for y, exact, near, of in goals:
        wanted = int(exact) if exact.isdigit() else values[exact or of]
        errors.append(values[y or near] - wanted if y else (values[near] - wanted) / wanted)
    return errors


def script_of(entry: LocalConstant) -> str:
    template = (PROOFS / f"{entry.primitive}.gappa").read_text(encoding="utf-8")
    return str(check.expand(template, entry.box, fused=entry.fused, dtype=entry.dtype))


def attack(entry: LocalConstant, size: int) -> tuple[list[Any], dict[str, Any]]:
    """Absolute errors of every part in unit roundoffs, and the operands they belong to."""
    rng = np.random.default_rng(crc32(name_of(entry).encode()))
    sample = Sampler(rng, {**PRIMITIVES[entry.primitive].fixed, **entry.box}, entry.dtype, size)
    operands = _operands(entry.primitive, sample)
    inputs = _inputs(entry.primitive, operands, sample)
    if entry.dtype == "float32":
        wide = {name: np.asarray(value, np.longdouble) for name, value in inputs.items()}
        errors = run_script(script_of(entry), wide, lambda v: v.astype(np.float32).astype(np.longdouble))
    else:
        rows = [
            run_script(
                script_of(entry),
                {name: _rational(value[i]) for name, value in inputs.items()},
                lambda v: Fraction(float(v)),
            )
            for i in range(size)
        ]
        errors = [np.array([float(row[j]) for row in rows]) for j in range(len(rows[0]))]
    return [np.abs(e).astype(float) / UNIT[entry.dtype] for e in errors], operands


def _rational(value: Any) -> Fraction:
    numerator, denominator = value.as_integer_ratio()
    return Fraction(numerator, denominator)


# In float32 the values of the script are rounded from longdouble or float64 and not from the exact ones, each by at
# most 2^-53 · 2^4 for numbers below 16; in units of 2^-24 that is 2^-25 each, and there are fewer than 32 of them.
SLACK = 2.0**-20


@pytest.mark.parametrize("entry", ENTRIES, ids=name_of)
def test_no_operands_of_a_box_exceed_the_constants_or_the_bound_of_the_oracle(entry):
    errors, operands = attack(entry, 2000 if entry.dtype == "float32" else 25)
    for error, constant in zip(errors, entry.parts, strict=True):
        assert error.max() <= constant + SLACK
    if entry.primitive in RELATIVE:
        return
    # pointwise: the oracle's bound for these very operands, not for the worst corner
    step = PRIMITIVES[entry.primitive]
    contraction = True if entry.fused else (None if step.accumulated else False)
    model = RoundingModel.of_dtype(entry.dtype, pairwise=True, fused=contraction)
    bound = step.bound(model, **operands).ravel() / model.unit
    assert (np.sqrt(sum(e * e for e in errors)) <= bound * (1 + 2.0**-16) + SLACK).all()


ORDINARY = [e for e in ENTRIES if e.dtype == "float32" and e.primitive not in SPECIAL]


@pytest.mark.parametrize("entry", ORDINARY, ids=name_of)
def test_the_attack_comes_near_every_constant(entry):
    """Otherwise it, or the constant, says little; the worst case of eleven roundings is not met by chance."""
    errors, _ = attack(entry, 20_000)
    assert max(e.max() / c for e, c in zip(errors, entry.parts, strict=True)) >= 0.4


def _as_float32(rng: np.random.Generator, size: int, names: str) -> dict[str, Any]:
    sample = Sampler(rng, {}, "float32", size)
    return {name: sample.part(name).astype(np.float32) for name in names.split()}


def _numpy_real(primitive: str, inputs: dict[str, Any]) -> Any:
    i = {name.rstrip("_"): value for name, value in inputs.items()}
    if primitive == "elementary_step":
        return i["e"] + i["u"] * i["f"]
    if primitive == "running_sum_step":
        return i["s"] + i["u"] * i["v"]
    return (i["cr"] * i["xr"] - i["ci"] * i["xi"]) + (i["dr"] * i["zr"] - i["di"] * i["zi"])


@pytest.mark.parametrize(
    ("primitive", "names"),
    [("elementary_step", "e f u"), ("running_sum_step", "s u v"), ("read_out", "cr ci xr xi dr di zr zi")],
)
def test_the_scripts_round_as_numpy_does(primitive, names):
    inputs = _as_float32(np.random.default_rng(1), 5000, names)
    ours = _script_value(primitive, inputs, fused=False, goal="y")
    assert np.array_equal(ours.astype(np.float32), _numpy_real(primitive, inputs))


def _script_value(primitive: str, inputs: dict[str, Any], *, fused: bool, goal: str) -> Any:
    template = (PROOFS / f"{primitive}.gappa").read_text(encoding="utf-8")
    script = check.expand(template, {}, fused=fused, dtype="float32")
    wide = {f"{name}_": value.astype(np.longdouble) for name, value in inputs.items()}
    head = re.sub(r"^\{.*", f"{{ |{goal} - 0| in ? }}", script, flags=re.DOTALL | re.MULTILINE)
    (value,) = run_script(head, wide, lambda v: v.astype(np.float32).astype(np.longdouble))
    return value


def test_numpys_complex_product_is_one_of_the_two_that_are_proved():
    i = _as_float32(np.random.default_rng(2), 5000, "ar ai br bi")
    product = (i["ar"] + 1j * i["ai"]).astype(np.complex64) * (i["br"] + 1j * i["bi"]).astype(np.complex64)
    for part, goal in ((product.real, "yr"), (product.imag, "yi")):
        variants = [_script_value("complex_product", i, fused=fused, goal=goal) for fused in (False, True)]
        assert np.all([part == v.astype(np.float32) for v in variants], axis=0).mean() < 1  # the two differ
        assert np.any([part == v.astype(np.float32) for v in variants], axis=0).all()


def test_the_table_is_the_one_that_update_prints():
    lines = [check.Line(entry, entry.parts) for entry in ENTRIES]
    namespace: dict[str, Any] = {}
    exec(f"rows = (\n{check.table(lines)}\n)", namespace)
    assert namespace["rows"] == PROVED
