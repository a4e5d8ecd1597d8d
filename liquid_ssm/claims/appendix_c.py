"""Appendix C: what can be computed of the advice on hyperparameters."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import numpy as np

from ..initialize import initialize
from . import formulas
from .appendix_e import pb_extra_operations
from .claim import Claim, Finding, ruling
from .counting import Tally
from .ring import System, all_zero, hadamard, total
from .samples import generic_system, variables

ZERO_MEAN = "the inputs are independent with mean zero"


def _sensitivities(a: Any, b: Any, u: Any, coupling: int) -> list[Any]:
    """∂x_k/∂b of x_k = (a + coupling · b u_k) x_{k−1} + b u_k, one mode."""
    x: Any = 0 * b
    d: Any = 0 * b
    result = []
    for u_k in u:
        d = (a + coupling * b * u_k) * d + u_k * (coupling * x + 1)
        x = (a + coupling * b * u_k) * x + b * u_k
        result.append(d)
    return result


def learning_rate(signs: tuple[int, ...] = (-1, 1)) -> Finding:
    """Sum of Σ_k (∂x_k/∂b)² over all inputs of signs, liquid minus S4, as a polynomial in a and b.

    Args:
        signs: values that each input takes with equal probability.
    """
    length = 5
    a, b = variables("a", "b")
    sequences = list(product(signs, repeat=length))

    def sum_of_squares(coupling: int) -> Any:
        return total(d * d for u in sequences for d in _sensitivities(a, b, u, coupling))

    gain = sum_of_squares(1) - sum_of_squares(0)
    # Even powers with positive coefficients: positive for all real a and b ≠ 0.
    proved = gain != 0 and all(
        value > 0 and exponents[0] % 2 == 0 and exponents[1] % 2 == 0 for exponents, value in gain.to_dict().items()
    )
    point = (Fraction(9, 10), Fraction(1, 5))
    ratio = _squares(point, sequences, 1) / _squares(point, sequences, 0)
    held = [(-1,) * length]
    counterexample = _squares(point, held, 1) / _squares(point, held, 0)
    return Finding(
        ruling(proved and counterexample > 1, condition=ZERO_MEAN, under_condition=proved),
        {
            "mean_square_ratio_random_signs": float(ratio),
            "mean_square_ratio_constant_input_minus_1": float(counterexample),
            "polynomial_terms_proved_positive": len(gain.to_dict()) if proved else 0,
        },
        f"for a = 0.9, b = 0.2 and five inputs the squared sensitivity to b is {float(ratio):.2f} times that of S4 on "
        f"average over random signs, but {float(counterexample):.2f} times for the constant input −1",
    )


def _squares(point: tuple[Fraction, Fraction], sequences: list[Any], coupling: int) -> Fraction:
    a, b = point
    result: Fraction = total(d * d for u in sequences for d in _sensitivities(a, b, u, coupling))
    return result


def dt_max(dt: float = 0.2) -> Finding:
    """Spectral radius of Ā at δt = 0.2 for HiPPO-LegS, whose eigenvalues are −1 … −N, by three discretisations.

    Args:
        dt: the step [time].
    """
    sizes = np.arange(1, 257)
    z = -dt * sizes
    euler, bilinear, zoh = np.abs(1 + z), np.abs((1 + z / 2) / (1 - z / 2)), np.exp(z)
    stable = int(sizes[euler <= 1].max(initial=0))
    return Finding(
        ruling(
            bool((euler <= 1).all()),
            condition="the discretisation is bilinear or zoh",
            under_condition=bool((bilinear < 1).all() and (zoh < 1).all()),
        ),
        {
            "radius_euler_N_64": float(euler[:64].max()),
            "largest_N_stable_with_euler": stable,
            "radius_bilinear_N_256": float(bilinear.max()),
            "radius_zoh_N_256": float(zoh.max()),
        },
        f"with Euler's Ā the radius is {euler[:64].max():.3g} for N = 64; N ≤ {stable} is stable",
    )


def dt_min(exponent: float = 1.0) -> Finding:
    """The share of an input that the slowest state (Re λ = −1/2) still holds after L steps of δt = 1/L^exponent."""
    lengths = [2**j for j in (10, 11, 12, 13, 14)]
    kept = []
    for length in lengths:
        z = -0.5 * length**-exponent
        kept.append(float(((1 + z / 2) / (1 - z / 2)) ** length))
    fixed = float(((1 - 0.25e-3) / (1 + 0.25e-3)) ** lengths[-1])
    spread = max(kept) / min(kept) - 1
    return Finding(
        ruling(spread < 1e-3),
        {"share_kept_L_1024": kept[0], "share_kept_L_16384": kept[-1], "share_kept_L_16384_dt_0_001": fixed},
    )


def causal(reverse: bool = False) -> Finding:
    """Which outputs of Eq. 11, 13 and 15 depend on later inputs, as polynomials.

    Args:
        reverse: the inputs run backwards in time, as in the second half of a bidirectional layer.
    """
    length = 4
    s = generic_system(1, length)
    given = s._replace(u=s.u[::-1]) if reverse else s
    one = given._replace(A=[[1]])
    modes = [
        formulas.outputs(given, liquid=True),
        formulas.equation_13(given, length),
        [formulas.correlation_terms(one, k, 2) + y for k, y in enumerate(formulas.outputs(given, liquid=False))],
    ]
    later = 0
    for outputs in modes:
        for k, y in enumerate(reversed(outputs) if reverse else outputs):
            degrees = y.degrees()[-length:]
            later += sum(int(degree) > 0 for degree in degrees[k + 1 :])
    return Finding(
        "not decidable by computation" if later == 0 else "fails",
        {"dependences_on_later_inputs": later, "outputs": 3 * length},
        "that it works better was seen in training; what is decided is that no output depends on a later input"
        if later == 0
        else f"outputs depend on later inputs in {later} cases",
    )


def state_size(n_state: int = 7) -> Finding:
    """Real parameters per channel of `legs`, counted in the package's own system: 7 states against 64.

    Args:
        n_state: the small state size.
    """

    def count(n_state: int) -> tuple[int, int]:
        system = initialize("legs", n_channels=1, n_state=n_state)
        arrays = [system.Lambda, system.P, system.B, system.C]
        return system.n_modes, 1 + sum(2 * v.size for v in arrays if v is not None)

    (modes, small), (_, large) = count(n_state), count(64)
    # Significantly: by more than half.
    return Finding(
        ruling(small < large / 2),
        {"parameters": small, "parameters_N_64": large, "ratio": small / large, "conjugate_pairs": modes},
    )


def kernel_choice(n_state: int = 64) -> Finding:
    """Multiplications that the liquid terms add to one step, PB against KB, counted.

    Args:
        n_state: N.
    """
    order = 3
    pb = pb_extra_operations(order, n_state, 8)
    tally = Tally()
    # KB with diagonal Ā as orders of Eq. 12: x^(p) = ā x^(p) + (b̄ u) x^(p−1), N numbers each; b̄ u is there already.
    a, drive, x = (tally.numbers([Fraction(1, 3)] * n_state) for _ in range(3))
    below = x
    for _ in range(order - 1):
        own = hadamard(a, x)
        own = [v + w for v, w in zip(own, hadamard(drive, below), strict=True)]
        below = own
    kb = tally.multiplications
    return Finding(
        ruling(pb < kb),
        {"multiplications_PB": pb, "multiplications_KB": kb, "N": n_state, "P": order},
    )


def order(inputs: tuple[int, ...] = (-1, 1)) -> Finding:
    """Orders of Eq. 12 are orthogonal in the mean over random signs, so each one added leads nearer to Eq. 11.

    Args:
        inputs: values that each input takes with equal probability.
    """
    length = 4
    names = variables("a0", "a1", "b0", "b1", "c0", "c1")
    A, B, C = [[names[0], 0], [0, names[1]]], names[2:4], names[4:]

    def by_order(u: Any, s: System) -> list[Any]:
        """Orders 1 … L of y_{L−1}."""
        outputs = [0, *(formulas.truncated_outputs(s._replace(u=u), p)[-1] for p in range(1, length + 1))]
        return [high - low for high, low in zip(outputs[1:], outputs[:-1], strict=True)]

    parts = [by_order(u, System(A, B, C, ())) for u in product(inputs, repeat=length)]
    products = [total(y[p] * y[q] for y in parts) for p in range(length) for q in range(p)]
    orthogonal = all_zero(products)

    # One mode with a large constant negative input: the partial sums of (a + b u)ᵏ swing before they settle.
    swing = System([[Fraction(9, 10)]], [Fraction(1)], [1], [Fraction(-3, 2)] * 6)
    exact = formulas.outputs(swing, liquid=True)[-1]
    errors = [float(abs(formulas.truncated_outputs(swing, p)[-1] - exact)) for p in range(1, 7)]
    grows = max(later / earlier for earlier, later in pairwise(errors))
    worst = int(np.argmax([later / earlier for earlier, later in pairwise(errors)])) + 1
    return Finding(
        ruling(orthogonal and grows <= 1, condition=ZERO_MEAN, under_condition=orthogonal),
        {
            "largest_growth_of_error_constant_input": grows,
            "products_of_orders_proved_zero": sum(p == 0 for p in products),
            "products_of_orders": len(products),
        },
        "for a = 0.9, b = 1 and the constant input −1.5 the distance from Eq. 11 at step 5 grows by a factor "
        f"{grows:.2g} from P = {worst} to P = {worst + 1}",
    )


CLAIMS = (
    Claim(
        "appendix-c-learning-rate",
        "Appendix C",
        "Liquid-S4 generally requires a smaller learning rate compared to S4 and S4D blocks.",
        "What rate a training needs is not decided. Gradient descent is limited by the squared sensitivity of the "
        "outputs to the parameters; its mean for B̄ is larger than that of S4. Proved for all real ā and b̄ of one "
        "mode, five inputs of random sign.",
        f"holds if {ZERO_MEAN}",
        learning_rate,
    ),
    Claim(
        "appendix-c-dt-max",
        "Appendix C",
        "We set Δt_max for all experiments to 0.2.",
        "Whether steps up to 0.2 keep the spectral radius of Ā at or below 1 for HiPPO-LegS of any size; whether "
        "0.2 trains best is not decided.",
        "holds if the discretisation is bilinear or zoh",
        dt_max,
    ),
    Claim(
        "appendix-c-dt-min",
        "Appendix C",
        "Δt_min was set to be proportional to 1/seq length.",
        "The purpose is a memory as long as the sequence: the slowest state, Re λ = −1/2, keeps the same share of "
        "an input over L steps for every L (bilinear, δt = 1/L, L from 1024 to 16384).",
        "holds",
        dt_min,
    ),
    Claim(
        "appendix-c-causal",
        "Appendix C",
        "Liquid-S4 works better when it is used as a causal model, i.e. with no bidirectional configuration.",
        "That it works better is an observation from training. What is decided: no output of Eq. 11, 13 or 15 "
        "depends on a later input (all values, N = 1, L = 4).",
        "not decidable by computation",
        causal,
    ),
    Claim(
        "appendix-c-state-size",
        "Appendix C",
        "A state size set to 7 significantly reduces the number of required parameters.",
        "Real parameters per channel (Λ, P, B, C complex, one δt) against the usual state size of 64; "
        "significantly: by more than half. With 7 the package, like the published code, stores three conjugate "
        "pairs. That small states perform best is an observation from training and not decided.",
        "holds",
        state_size,
    ),
    Claim(
        "appendix-c-kernel-choice",
        "Appendix C",
        "We choose the PB kernel over the KB kernel due to the computational costs and performance.",
        "Costs: multiplications that the liquid terms add to one step with diagonal Ā, N = 64, P = 3, counted. "
        "Performance in training is not decided.",
        "holds",
        kernel_choice,
    ),
    Claim(
        "appendix-c-order",
        "Appendix C",
        "Higher p values consistently enhance the representation learning capacity of Liquid-S4.",
        "Eq. 12 with orders up to p comes nearer to Eq. 11, which has all orders, with each p, in the mean square "
        "over the inputs: different orders are orthogonal (proved for all values, N = 2, L = 4, random signs). "
        "Scores after training are not decided.",
        f"holds if {ZERO_MEAN}",
        order,
    ),
)
