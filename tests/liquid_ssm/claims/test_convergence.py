from __future__ import annotations

import pytest

from liquid_ssm.claims.convergence import has_order, slope


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_slope_of_a_power_is_its_exponent(order: int) -> None:
    steps = [0.1, 0.05, 0.025]
    fitted = slope(steps, [7.0 * h**order for h in steps])
    assert fitted == pytest.approx(order)
    assert has_order(fitted, order)
    assert not has_order(fitted, order + 1)
    assert not has_order(order + 0.25, order)
