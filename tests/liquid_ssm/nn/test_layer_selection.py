"""Layers select their backend, as `apply` does: by proof and time, or by name."""

from __future__ import annotations

import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn import SSMLayer
from liquid_ssm.selection import auto, recheck


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path))
    auto.forget()
    yield
    auto.forget()


def test_the_default_is_selected_for_sequences_gradients_and_steps_alike():
    torch.manual_seed(0)
    layer = SSMLayer(2, 4)
    u = 0.1 * torch.randn(2, 40, 2)
    layer(u).sum().backward()
    with torch.no_grad():
        layer(u)
        _, state = layer.step(u[:, 0])
        layer.step(u[:, 1], state)
    chosen = [(grant.certificate.domain, grant.backend) for grants in auto._grants.values() for grant in grants]
    found = {(domain.gradient, domain.state, domain.arrays) for domain, _ in chosen}
    assert {(True, False, "torch"), (False, False, "torch"), (False, True, "numpy")} <= found
    before = dict(auto._grants)
    layer(u)
    assert auto._grants == before


def test_certified_only_makes_no_certificate():
    layer = SSMLayer(2, 4, backend="certified-only")
    with pytest.raises(ls.NotCertified, match="no valid certificate"):
        layer(0.1 * torch.randn(2, 40, 2))


def test_tolerance_and_recheck_reach_the_selection(monkeypatch):
    seen = []
    monkeypatch.setattr(recheck, "watch", lambda *given: seen.append(given[-1]))
    layer = SSMLayer(2, 4, tolerance=1e-3, recheck=0.5)
    with torch.no_grad():
        layer(0.1 * torch.randn(2, 40, 2))
        layer.step(torch.zeros(2, 2))
    assert seen == [0.5, 0.5]
    tolerances = {grant.certificate.domain.tolerance for grants in auto._grants.values() for grant in grants}
    assert tolerances == {1e-3}


def test_a_named_backend_computes_or_says_why_not():
    with pytest.raises(ls.BackendRejected, match="keops"):
        SSMLayer(2, 4, backend="keops")(torch.zeros(1, 5, 2))
