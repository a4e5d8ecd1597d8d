"""Run Gappa over the scripts of this folder and compare what it proves with the tables of the oracle.

    python proofs/check.py            every entry of oracle/local_constants.py
    python proofs/check.py --update   the entries as Gappa proves them now, to be pasted there
    python proofs/check.py --show PRIMITIVE [fused] [float64]   one script as it is run

A script holds one step for float32 without contraction, operands at most 1 in magnitude. An entry names the
primitive and changes the rounding (`@rnd`, and 1b-24 to 1b-21, one to eight unit roundoffs), the products that a
fused multiply-add leaves unrounded (`mid`), and the box of the operands.

Exit code: 0 everything agrees, 1 something does not or Gappa is missing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path

from liquid_ssm.oracle.local_bounds import Box
from liquid_ssm.oracle.local_constants import DTYPES, GRAIN, PROVED, LocalConstant, box_text, local_constants

FOLDER = Path(__file__).parent
MISSING = "gappa is not installed; on Debian and Ubuntu: apt-get install gappa"
SECONDS = 120

_UNIT_EXPONENTS = {"float32": 24, "float64": 53}
_NUMBER = r"(-?\d+)(?:b(-?\d+))?"
_END = rf"{_NUMBER}(?: \{{[^}}]*\}})?"
_PROPERTY = re.compile(rf"^  (.+) in \[{_END}, {_END}\]$", re.MULTILINE)
_HYPOTHESIS = re.compile(r"\|(\w+)\| <= 1\b(?!b)|(\w+) in \[[^\]?]*\](?= /\\|\s*->)")
_ROUNDING = re.compile(r"^@(rnd|mid) = float<ieee_32, ne>;.*\n", re.MULTILINE)


class ProofError(Exception):
    """A script that cannot be expanded, or something that Gappa did not prove."""


def expand(template: str, box: Box, *, fused: bool, dtype: str) -> str:
    """The script of one entry."""
    if "rnd" not in _ROUNDING.findall(template):
        raise ProofError("the line `@rnd = float<ieee_32, ne>;` is missing")
    if "mid(" in template and "mid" not in _ROUNDING.findall(template):
        raise ProofError("mid is used, but the line `@mid = float<ieee_32, ne>;` is missing")
    unused = set(box)

    def bounded(match: re.Match[str]) -> str:
        part, interval = match.groups()
        name = part or interval
        # an operand such as b stands for its parts br and bi, unless one of them is given by itself
        key = next((key for key in (name, name[:-1]) if key in box), None)
        if key is None:
            return match.group()
        unused.discard(key)
        limit = box[key]
        if isinstance(limit, tuple) != bool(interval):
            raise ProofError(f"the box gives {limit!r} for {name}; the script has {match.group()!r}")
        if isinstance(limit, tuple):
            return f"{name} in [{Decimal(limit[0]):f}, {Decimal(limit[1]):f}]"
        return f"|{name}| <= {Decimal(limit):f}"

    script = _HYPOTHESIS.sub(bounded, template)
    if unused:
        raise ProofError(f"the box names {', '.join(sorted(unused))}, which the script has no hypothesis for")
    if dtype == "float64":
        script = script.replace("ieee_32", "ieee_64")
        script = re.sub(r"1b-2([1-4])\b", lambda digit: f"1b-{int(digit[1]) + 49}", script)
    if fused:
        script = re.sub(r"^@mid.*\n", "", script, flags=re.MULTILINE).replace("mid(", "(")
    return script


def run_gappa(script: str) -> str:
    """Everything that Gappa prints about a script."""
    # Without a threshold for what counts as progress the result does not depend on addresses in memory; 128 bits, so
    # that the intervals around float64 are not themselves rounded visibly.
    done = subprocess.run(
        ["gappa", "-Eprecision=128", "-Echange-threshold=0"],
        input=script,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done.stdout + done.stderr


def proved(output: str, goals: int, dtype: str) -> tuple[float, ...]:
    """The constants that Gappa printed, in unit roundoffs and rounded up to the grain of the table.

    Args:
        output: what Gappa printed.
        goals: how many properties the script asks for.
        dtype: whose unit roundoff.

    Raises:
        ProofError: an error, hypotheses that contradict each other, or fewer properties than asked for.
    """
    if "Error" in output or "pointless" in output or "contradict" in output:
        raise ProofError(" ".join(output.split()))
    found = _PROPERTY.findall(output)
    if len(found) != goals:
        raise ProofError(f"{len(found)} of {goals} properties in: {' '.join(output.split())}")
    constants = []
    for _, *ends in found:
        lower, upper = (int(m) * Fraction(2) ** int(e or 0) for m, e in (ends[:2], ends[2:]))
        units = max(abs(lower), abs(upper)) * 2 ** _UNIT_EXPONENTS[dtype]
        constants.append(ceil(units / Fraction(GRAIN)) * GRAIN)
    return tuple(constants)


def prove(entry: LocalConstant) -> tuple[float, ...]:
    """What Gappa proves for one entry."""
    template = (FOLDER / f"{entry.primitive}.gappa").read_text(encoding="utf-8")
    script = expand(template, entry.box, fused=entry.fused, dtype=entry.dtype)
    return proved(run_gappa(script), script.count("in ?"), entry.dtype)


@dataclass(frozen=True)
class Line:
    """One line of the report."""

    entry: LocalConstant
    found: tuple[float, ...] | ProofError

    @property
    def problem(self) -> str:
        if isinstance(self.found, ProofError):
            return f"not proved: {self.found}"
        if self.found != self.entry.parts:
            return f"the table has {_numbers(self.entry.parts)}; --update prints new ones"
        if not self.entry.proved <= self.entry.allowed:
            return f"the oracle's bound is below the proved constant {self.entry.proved:.3f}"
        return ""

    def __str__(self) -> str:
        e = self.entry
        found = "-" if isinstance(self.found, ProofError) else _numbers(self.found)
        variant = "fused" if e.fused else "separate"
        cells = f"{e.primitive:27} {variant:8} {e.dtype:7} {box_text(e.box):45} {found:15} {_numbers(e.parts):15}"
        return f"{cells} {e.proved:7.3f} {e.measure:7} {e.allowed:7.3f}  {self.problem or 'ok'}"


def _numbers(parts: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in parts)


def check(entries: Sequence[LocalConstant]) -> list[Line]:
    """Prove every entry; the order is kept."""

    def attempt(entry: LocalConstant) -> Line:
        try:
            return Line(entry, prove(entry))
        except (ProofError, subprocess.TimeoutExpired) as error:
            return Line(entry, error if isinstance(error, ProofError) else ProofError(str(error)))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(attempt, entries))


def table(lines: Sequence[Line]) -> str:
    """The rows of `PROVED` with the constants that were found."""
    rows = []
    by_dtype = [lines[i :: len(DTYPES)] for i in range(len(DTYPES))]
    for row, *same in zip(PROVED, *by_dtype, strict=True):
        failed = next((line.found for line in same if isinstance(line.found, ProofError)), None)
        if failed is not None:
            raise ProofError(f"{row[0]}, {box_text(row[1])}: {failed}")
        cells = [*row[:4], *(line.found for line in same)]
        rows.append("    (" + ", ".join(repr(cell).replace("'", '"') for cell in cells) + "),")
    return "\n".join(rows)


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--show"] and len(arguments) > 1:
        template = (FOLDER / f"{arguments[1]}.gappa").read_text(encoding="utf-8")
        options = arguments[2:]
        print(expand(template, {}, fused="fused" in options, dtype="float64" if "float64" in options else "float32"))
        return 0
    if arguments not in ([], ["--update"]):
        print(__doc__, file=sys.stderr)
        return 1
    if shutil.which("gappa") is None:
        print(MISSING, file=sys.stderr)
        return 1
    lines = check(list(local_constants()))
    if arguments:
        print(table(lines))
        return 0
    head = f"{'primitive':27} {'variant':8} {'dtype':7} {'box':45} {'Gappa':15} {'table':15}"
    print(f"{head}  proved measure  oracle  (in unit roundoffs)")
    for line in lines:
        print(line)
    used = {entry.primitive for entry in (line.entry for line in lines)}
    idle = sorted(path.stem for path in FOLDER.glob("*.gappa") if path.stem not in used)
    problems = [line for line in lines if line.problem]
    if idle:
        print(f"scripts without an entry: {', '.join(idle)}", file=sys.stderr)
    print(f"{len(lines)} entries, {len(problems)} problems")
    return 1 if problems or idle or not lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
