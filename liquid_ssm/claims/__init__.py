"""The ledger of the paper's claims: each statement, how it is read, a check that runs, and a verdict with its numbers.

`evaluate()` computes the whole ledger, `liquid-ssm claims` prints it. The paper is Hasani, Lechner, Wang, Chahine,
Amini and Rus, "Liquid Structural State-Space Models", ICLR 2023, arXiv 2209.12951.
"""

from .claim import Claim, Entry, Finding
from .evaluation import changed, evaluate, ledger, select, to_json

__all__ = ["Claim", "Entry", "Finding", "changed", "evaluate", "ledger", "select", "to_json"]
