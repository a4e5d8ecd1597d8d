from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from liquid_ssm.backends import _correlations as readable
from liquid_ssm.backends.eager.correlations import correlate, correlate_vjp
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError
from liquid_ssm.oracle import correlation, scan_bounds
from liquid_ssm.oracle.rounding import RoundingModel

BATCH, H = 2, 3
LENGTHS = [0, 1, 2, 3, 7, 16, 17]
# kind, window, inputs before
CASES = [
    ("products", None, 0),
    ("products", None, 5),
    ("products", 4, 1),
    ("running", None, 0),
    ("running", None, 1),
    ("running", None, 7),
    ("running", 5, 0),
    ("running", 5, 2),
    ("running", 5, 9),
    ("elementary", None, 0),
    ("elementary", 5, 0),
    ("elementary", 5, 2),
    ("elementary", 5, 9),
    ("elementary", 50, 3),
]


def integers(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, shape).astype(float))


def arguments(kind: str, window: int | None, before: int, order: int) -> dict[str, Any]:
    stateful = kind != "products" and window is None
    n_sums = order if kind == "elementary" else order - 1
    return {
        "order": order,
        "kind": kind,
        "window": window,
        "sums": integers(1, n_sums, BATCH, H) if stateful else None,
        "previous": integers(2, BATCH, H, before) if before else None,
    }


def as_numpy(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in options.items()}


def assert_same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    for x, y in zip(found, expected, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            assert np.array_equal(x.numpy(), y)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(("kind", "window", "before"), CASES)
def test_terms_sums_and_gradients_are_exact_where_nothing_rounds(
    kind: str, window: int | None, before: int, order: int
) -> None:
    options = arguments(kind, max(window, order) if window else None, before, order)
    for length in LENGTHS:
        u = integers(3, BATCH, H, length)
        found = correlate(u, **options)
        assert_same(found, readable.correlate(u.numpy(), **as_numpy(options)))
        grad = integers(4, *found[0].shape)
        grad_sums = None if found[1] is None else integers(5, *found[1].shape)
        for terms, sums in ((grad, grad_sums), (None, grad_sums), (grad, None)):
            given = (None if terms is None else terms.numpy(), None if sums is None else sums.numpy())
            expected = readable.correlate_vjp(u.numpy(), *given, **as_numpy(options))
            assert_same(correlate_vjp(u, terms, sums, **options), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 337])
def test_within_the_bounds_of_the_oracle(length: int, dtype: Any) -> None:
    u = np.random.default_rng(length).standard_normal((BATCH, H, length)).astype(dtype)
    model = RoundingModel.of_dtype(dtype, scan="any")
    exact = u.astype(np.longdouble)
    products, errors = correlation.adjacent_products(exact, 4, [model])
    expected = {
        ("products", None): (products[1:], errors[1:]),
        ("running", None): scan_bounds.running_sums(products[1:], errors[1:], [model]),
        ("elementary", None): tuple(v[1:] for v in scan_bounds.elementary(exact, 4, [model])),
    }
    for window in (4, 9, 40):
        moving = correlation.windowed_sums(products, errors, window, [model])
        expected["running", window] = tuple(v[1:] for v in moving)
        expected["elementary", window] = tuple(
            v[1:] for v in correlation.windowed_elementary(exact, 4, window, [model])
        )
    for (kind, window), (values, bounds) in expected.items():
        terms, _ = correlate(torch.from_numpy(u), order=4, kind=kind, window=window)  # type: ignore[arg-type]
        for term, value, bound in zip(terms.numpy(), values, bounds, strict=True):
            assert (np.abs(term - value) <= bound[0]).all()


@pytest.mark.parametrize(("kind", "window", "before"), CASES)
def test_layout_changes_no_bit_and_nothing_is_written_or_shared(kind: Any, window: int | None, before: int) -> None:
    options = arguments(kind, window, before, 3)
    u = torch.from_numpy(np.random.default_rng(6).standard_normal((BATCH, H, 12)))
    terms, sums = correlate(u, **options)
    gradients = correlate_vjp(u, terms, sums, **options)
    gaps = u.repeat_interleave(2, -1)[..., ::2].transpose(0, 1).contiguous().transpose(0, 1)
    kept = gaps.clone()
    others = correlate(gaps, **options)
    assert torch.equal(others[0], terms)
    assert torch.equal(gaps, kept)
    assert all(
        x is None or torch.equal(x, y)
        for x, y in zip(correlate_vjp(gaps, terms, sums, **options), gradients, strict=True)
    )
    expanded = u[:1].expand(BATCH, -1, -1)
    plain = {**options, "previous": None, "sums": None}
    assert torch.equal(correlate(expanded, **plain)[0], correlate(expanded.clone(), **plain)[0])
    results = [x for x in (terms, sums, *gradients) if x is not None]
    inputs = [x for x in (u, options["sums"], options["previous"]) if x is not None]
    pointers = {x.untyped_storage().data_ptr() for x in inputs}
    assert not pointers & {x.untyped_storage().data_ptr() for x in results}


@pytest.mark.parametrize(("kind", "window", "before"), CASES)
def test_can_be_compiled_as_one_graph_and_traced_without_data(kind: Any, window: int | None, before: int) -> None:
    options = arguments(kind, window, before, 3)
    u = integers(7, BATCH, H, 12)

    # Else torch would give up after some cases of one function.
    torch._dynamo.reset()

    def both(u: torch.Tensor) -> tuple[Any, ...]:
        terms, sums = correlate(u, **options)
        return terms, sums, *correlate_vjp(u, terms, sums, **options)

    for x, y in zip(torch.compile(both, backend="eager", fullgraph=True)(u), both(u), strict=True):
        assert (x is None) == (y is None)
        assert x is None or torch.equal(x, y)
    meta = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    assert correlate(u.to("meta"), **meta)[0].shape == both(u)[0].shape


@pytest.mark.parametrize(("kind", "window", "before"), CASES)
def test_autograd_agrees_with_the_vector_jacobian_product(kind: Any, window: int | None, before: int) -> None:
    options = arguments(kind, window, before, 3)
    u = integers(8, BATCH, H, 12).requires_grad_()
    terms, _ = correlate(u, **options)
    grad = integers(9, *terms.shape)
    (expected,) = torch.autograd.grad(terms, u, grad)
    assert torch.equal(correlate_vjp(u.detach(), grad, None, **options)[0], expected)


def test_what_makes_no_sense_is_refused() -> None:
    u = torch.ones(1, 1, 3)
    with pytest.raises(ParameterError, match=r"unknown correlation kind 'adjacent'; allowed: products"):
        correlate(u, order=2, kind="adjacent")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="order is 0"):
        correlate(u, order=0, kind="products")
    with pytest.raises(ParameterError, match="window is 2; it must be at least 3"):
        correlate(u, order=3, kind="running", window=2)
    for options in ({"kind": "products"}, {"kind": "running", "window": 3}):
        with pytest.raises(ParameterError, match="only `running` and `elementary` without a window carry sums"):
            correlate(u, order=2, sums=torch.zeros(1, 1, 1), **options)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="what came before u_0 is in `sums`"):
        correlate(u, order=2, kind="elementary", previous=u)
    with pytest.raises(ShapeError, match=r"sums has shape \(1, 1, 1\); it must be \(2, 1, 1\)"):
        correlate(u, order=2, kind="elementary", sums=torch.zeros(1, 1, 1))
    with pytest.raises(ShapeError, match=r"previous has shape \(2, 1, 3\); it must be \(1, 1, 'n'\)"):
        correlate(u, order=2, kind="products", previous=torch.ones(2, 1, 3))
    with pytest.raises(ShapeError, match="grad_terms has shape"):
        correlate_vjp(u, u, None, order=3, kind="products")
    with pytest.raises(ParameterError, match="grad_sums was given"):
        correlate_vjp(u, None, torch.zeros(1, 1, 1), order=2, kind="products")
    with pytest.raises(DTypeError, match=r"u has dtype torch.int64"):
        correlate(u.long(), order=2, kind="products")
    with pytest.raises(ParameterError, match="u is on cpu but previous on meta"):
        correlate(u, order=2, kind="products", previous=u.to("meta"))
