"""ListOps: the task is a generator, so what this writes is the real task and no stand-in."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

from ..data_folder import Generated, write_generated
from ..environment import package_version
from ..errors import ParameterError
from .draw import Draw, at_least, new_folder

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
# Of an argument above the greatest depth: to be a list itself.
LIST_SHARE = 0.25
# Deeper trees could exceed Python's recursion limit.
DEEPEST = 200
# Draws without a new expression after which there is none to be expected.
_PATIENCE = 1_000_000
# Expressions between two reports of progress.
_STRIDE = 100


def generate_listops(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 96_000,
    validation: int = 2_000,
    test: int = 2_000,
    min_length: int = 500,
    max_length: int = 2_000,
    max_depth: int = 10,
    max_args: int = 10,
    progress: Callable[[int, int, str], None] | None = None,
) -> Generated:
    """Write `listops/basic_{train,val,test}.tsv` as Long Range Arena's generator does, with its defaults.

    An argument is a list with probability 1/4 and else a digit; a list has 2 to `max_args` arguments and one of MIN,
    MAX, MED (the median, rounded down) and SM (the sum modulo 10), all equally likely.  Expressions are drawn until
    they are of a length in between, and no two of all parts are the same.

    Args:
        folder: new or empty.
        seed: of the draws; the same seed gives the same bytes.
        train, validation, test: expressions of each part.
        min_length, max_length: between which a length lies, both excluded: operators, digits and closing brackets
            [symbols].
        max_depth: of the tree, whose root has depth 1; at this depth there are digits only.
        max_args: most arguments of an operator.
        progress: told (done, total, part).

    Raises:
        ParameterError: a number out of range, lengths that no expression has, or a folder that is not empty.

    Source: arXiv 1804.06028 and 2011.04006.
    """
    counts = {"train": train, "validation": validation, "test": test}
    at_least(1, **counts)
    at_least(0, seed=seed, min_length=min_length)
    at_least(2, max_depth=max_depth, max_args=max_args)
    if max_depth > DEEPEST:
        raise ParameterError(f"max_depth is {max_depth}; at most {DEEPEST} is possible.")
    if max_length < min_length + 2:
        raise ParameterError(f"no length lies between min_length {min_length} and max_length {max_length}.")
    *_, longest = accumulate(range(max_depth - 1), lambda length, _: min(2 + max_args * length, max_length), initial=1)
    if longest <= min_length:
        raise ParameterError(
            f"expressions of depth {max_depth} with {max_args} arguments have at most {longest} symbols, which is not "
            f"above min_length {min_length}; lower min_length, or raise max_depth or max_args."
        )
    place = new_folder(Path(folder)) / "listops"
    place.mkdir()
    expressions = _Expressions(Draw(seed), min_length, max_length, max_depth, max_args)
    files, done, total = [], 0, sum(counts.values())
    for part, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        files.append(place / f"basic_{name}.tsv")
        # The published files are written by Python's csv module, which ends lines so.
        with files[-1].open("w", encoding="ascii", newline="\r\n") as file:
            file.write("Source\tTarget\n")
            for _ in range(counts[part]):
                source, target = expressions.another()
                file.write(f"{source}\t{target}\n")
                done += 1
                if progress is not None and (done % _STRIDE == 0 or done == total):
                    progress(done, total, part)
    options = {"min_length": min_length, "max_length": max_length, "max_depth": max_depth, "max_args": max_args}
    about = Generated("listops", seed, package_version("liquid-ssm"), counts, options)
    write_generated(Path(folder), about, files)
    return about


class _TooLong(Exception):
    pass


class _Expressions:
    """Draws expressions, no one twice."""

    def __init__(self, draw: Draw, min_length: int, max_length: int, max_depth: int, max_args: int) -> None:
        self.draw, self.max_depth, self.max_args = draw, max_depth, max_args
        self.min_length, self.max_length = min_length, max_length
        self.known: set[bytes] = set()
        self.words: list[str] = []
        self.length = 0

    def another(self) -> tuple[str, int]:
        """An expression and its value."""
        for _ in range(_PATIENCE):
            self.words, self.length = [], 0
            try:
                value = self._argument(1)
            except _TooLong:
                continue
            if self.length <= self.min_length:
                continue
            source = " ".join(self.words)
            mark = blake2b(source.encode("ascii"), digest_size=16).digest()
            if mark not in self.known:
                self.known.add(mark)
                return source, value
        raise ParameterError(
            f"after {len(self.known):,} expressions {_PATIENCE:,} draws gave no other one with a length between "
            f"{self.min_length} and {self.max_length}; ask for fewer, or for a wider range of lengths."
        )

    def _argument(self, depth: int) -> int:
        draw = self.draw
        if depth >= self.max_depth or draw.uniform() > LIST_SHARE:
            value = draw.below(10)
            self.words.append(str(value))
            self._longer(1)
            return value
        self._longer(2)
        n_args, operator = draw.within(2, self.max_args), draw.choice(OPERATORS)
        # A list is the binary tree (((operator first) second) … ]), a pair of parentheses for each of its nodes.
        self.words.append("( " * (n_args + 1) + operator)
        values = []
        for _ in range(n_args):
            values.append(self._argument(depth + 1))
            self.words.append(")")
        self.words.append("] )")
        return _value(operator, values)

    def _longer(self, symbols: int) -> None:
        self.length += symbols
        if self.length >= self.max_length:
            raise _TooLong


def _value(operator: str, values: list[int]) -> int:
    if operator == "[MIN":
        return min(values)
    if operator == "[MAX":
        return max(values)
    if operator == "[SM":
        return sum(values) % 10
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) // 2
