"""The terms of `pb` added in one pass against terms that are stored and added one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled import added_correlations
from liquid_ssm.backends.compiled.added_correlations import add_correlations


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["elementary", "running"])
@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 3, 16, 65, 130])
@pytest.mark.parametrize("carried", [True, False])
def test_one_pass_gives_the_same(readable, close, kind, order, length, carried, threads, monkeypatch):
    monkeypatch.setattr(added_correlations, "ALONE", 0)
    rng = np.random.default_rng(0)
    y, u = rng.normal(size=(2, 3, 20, length))
    responses = rng.normal(size=(order - 1, 20))
    sums = rng.normal(size=(order if kind == "elementary" else order - 1, 3, 20)) if carried else None
    previous = rng.normal(size=(3, 20, order)) if carried and kind == "running" else None
    terms, final = readable.correlate(u, order=order, kind=kind, sums=sums, previous=previous)
    expected = y + (responses[:, None, :, None] * terms).sum(axis=0)
    options = {"order": order, "elementary": kind == "elementary", "sums": sums, "previous": previous}
    given, total = y.copy(), np.empty_like(y)
    found = add_correlations(y, total, u, responses, threads=threads, **options)
    assert np.array_equal(y, given)
    close(total, expected)
    close(found, final)
    in_place = add_correlations(y, y, u, responses, threads=threads, **options)
    assert np.array_equal(y, total)
    assert np.array_equal(in_place, found)
