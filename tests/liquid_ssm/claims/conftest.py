"""The ledger, evaluated once for all tests of this folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module

import pytest

from liquid_ssm.claims import Claim, Entry, evaluate, ledger


class Ledger:
    """Entries by id, the claims they come from, and the processor time that all of them took."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {claim.id: claim for claim in ledger()}
        started = time.process_time()
        self.entries: dict[str, Entry] = {entry.id: entry for entry in evaluate()}
        self.seconds = time.process_time() - started


@pytest.fixture(scope="session")
def whole() -> Ledger:
    return Ledger()


@pytest.fixture
def entry(whole: Ledger) -> Callable[[str], Entry]:
    """The evaluated claim with that id."""
    return whole.entries.__getitem__


@pytest.fixture
def with_changed(whole: Ledger) -> Callable[..., str]:
    """The ruling of a claim after some ingredients of its check were replaced."""

    def ruling(name: str, **ingredients: object) -> str:
        return whole.claims[name].evaluate(**ingredients).ruling

    return ruling


@pytest.fixture
def agree(whole: Ledger) -> Callable[[dict[str, str], str], None]:
    """All claims of one theme, and no others, have these rulings, now and in the record."""

    def check(recorded: dict[str, str], theme: str) -> None:
        assert [claim.id for claim in import_module(f"liquid_ssm.claims.{theme}").CLAIMS] == list(recorded)
        assert {name: whole.entries[name].ruling for name in recorded} == recorded
        assert {name: whole.claims[name].expected for name in recorded} == recorded

    return check
