"""Errors of the oracle's own; bad arguments are plain `ValueError`s."""

from __future__ import annotations


class PrecisionExhausted(ArithmeticError):
    """An enclosure did not reach its target radius below the largest precision allowed."""


class OutputOverflow(ArithmeticError):
    """The exact output is larger than the largest float64, so it has no enclosure in floats."""


class OracleDisagreement(ArithmeticError):
    """The same quantity, evaluated at two precisions, differs in the digits that were asked for."""
