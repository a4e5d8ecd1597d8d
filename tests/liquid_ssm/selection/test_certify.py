"""A certificate for a problem: from the folder while it holds, else made again with the reason said."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from liquid_ssm.certificate_store import CertificateStore
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.selection import certify as module
from liquid_ssm.selection.certify import certify
from liquid_ssm.selection.choose import Selection
from liquid_ssm.selection.data import canonical

PROBLEM = Problem(ModeSpec("liquid"), "diagonal", 1, 2, 4, 24, "float64")


@pytest.fixture(autouse=True)
def two(only):
    only("numpy", "scipy")


@pytest.fixture
def incumbents(monkeypatch):
    """What each selection is told of the ones before."""
    told = []

    class Told(Selection):
        def __init__(self, *args, **options):
            told.append((options["incumbent"], list(options["residues"])))
            super().__init__(*args, **options)

    monkeypatch.setattr(module, "Selection", Told)
    return told


def test_made_once_then_read():
    made, reasons, new = certify(canonical(PROBLEM))
    assert (new, reasons) == (True, [])
    read, reasons, new = certify(canonical(PROBLEM))
    assert (new, reasons) == (False, [])
    assert read == made


def test_only_stored_makes_nothing():
    assert certify(canonical(PROBLEM), only_stored=True) == (None, [], False)
    assert not list(CertificateStore().all())


def test_again_keeps_who_was_chosen_in_mind(incumbents):
    first, _, _ = certify(canonical(PROBLEM))
    second, _, new = certify(canonical(PROBLEM), again=True)
    assert new
    assert incumbents == [(None, []), (first.backend, [])]
    assert len(list(CertificateStore().all())) == 1
    assert second.domain == first.domain


def test_named_backends_neither_read_nor_write():
    certify(canonical(PROBLEM))
    before = {path: path.read_text() for path, _ in CertificateStore().all()}
    certificate, _, new = certify(canonical(PROBLEM), only=("scipy",))
    assert new
    assert certificate.backend == "scipy"
    assert {path: path.read_text() for path, _ in CertificateStore().all()} == before


def test_a_validator_that_changed_is_said_and_the_choice_remembered(incumbents, monkeypatch, caplog):
    first, _, _ = certify(canonical(PROBLEM))
    usual = module.validators
    monkeypatch.setattr(module, "validators", lambda *a: {**usual(*a), "numpy": "99.0"})
    with caplog.at_level(logging.INFO, "liquid_ssm"):
        second, reasons, new = certify(canonical(PROBLEM))
    assert new
    assert second.validators["numpy"] == "99.0"
    assert any("numpy was" in reason and "is 99.0" in reason for reason in reasons)
    assert "selecting again: certificate" in caplog.text
    assert incumbents[1][0] == first.backend
    assert len(list(CertificateStore().all())) == 2  # the other still holds under its own


def test_residues_add_up_while_the_backend_stays(incumbents):
    first, _, _ = certify(canonical(PROBLEM))
    CertificateStore().save(replace(first, oracle={**first.oracle, "residues": [17]}))
    _, reasons, new = certify(canonical(PROBLEM))
    assert new
    assert "length 24 is none of those that were verified" in reasons[0]
    assert incumbents[1] == (first.backend, [17])


def test_lengths_with_gradients_are_verified_one_by_one_and_kept(only):
    only("numpy")
    problem = replace(PROBLEM, gradient=True)
    for length, known in ((24, [24]), (25, [24, 25]), (30, [24, 25, 30])):
        certificate, _, new = certify(canonical(replace(problem, length=length)))
        assert new
        assert certificate.oracle["residues"] == known
    for length in (24, 25, 30):
        assert not certify(canonical(replace(problem, length=length)))[2]


def test_a_quarantined_backend_stays_out():
    first, _, _ = certify(canonical(PROBLEM))
    CertificateStore().quarantine(first, "it was wrong", {})
    other, _, new = certify(canonical(PROBLEM))
    assert new
    assert other.backend != first.backend
    assert "quarantined: it was wrong" in {c.name: c.reason for c in other.candidates}[first.backend]
