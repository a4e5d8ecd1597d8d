"""`from_published`: the layer has the kernel of the published arrays, and what has no counterpart is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from liquid_ssm.continuous import ContinuousSystem
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError
from liquid_ssm.nn.published import from_published
from liquid_ssm.registry import get_backend

DATA = Path(__file__).parents[2] / "data"
U = 2.0**-53
GOLDEN = np.load(DATA / "s4_kernels.npz")
CASES = sorted({key.rsplit("/", 1)[0] for key in GOLDEN.files})
S4 = [case for case in CASES if case.startswith("dplr")]
S4D = [case for case in CASES if case.startswith("diag")]
SMALL = ["dplr-legs/N8/L64", "dplr-fout/N8/L64", "diag-inv-bilinear/N8/L64", "diag-lin-zoh/N8/L16"]


def pairs(values):
    return np.stack([values.real, values.imag], -1)


def golden(case):
    return {name: GOLDEN[f"{case}/{name}"] for name in ("w", "P", "B", "C", "dt", "K") if f"{case}/{name}" in GOLDEN}


def discretization(case):
    return "zoh" if "zoh" in case else "bilinear"


def version3(case, C=None, length=0):
    """The arrays of the kernel as `state_dict()` of version 3, and of Liquid-S4, names them."""
    g = golden(case)
    w, C = g["w"], g["C"] if C is None else C
    arrays = {"C": pairs(C)[None], "log_dt": np.log(g["dt"])}
    if "P" in g:
        more = {"B": pairs(g["B"])[None], "P": pairs(g["P"]), "w_imag": w.imag, "L": np.array(length)}
        return arrays | more | {"inv_w_real": np.log(-w.real)}
    return arrays | {"B": pairs(g["B"]), "inv_A_real": np.log(-w.real), "A_imag": w.imag}


def version4(case, C=None, length=0):
    """The same as version 4 names them: the imaginary part with the other sign, one step size in a column."""
    old = version3(case, C, length)
    real = "inv_w_real" if "P" in old else "inv_A_real"
    new = {"C": old["C"], "B": old["B"].reshape(1, *old["B"].shape[-3:]), "inv_dt": old["log_dt"][:, None]}
    new |= {"A_real": old[real], "A_imag": -golden(case)["w"].imag}
    return new | ({"P": old["P"], "l_kernel": np.array(length)} if "P" in old else {})


def imported(arrays, case="dplr", **options):
    options = {"feedthrough": False, "backend": "first", "discretization": discretization(case)} | options
    return from_published(arrays, **options)


def kernel(layer, length):
    with torch.no_grad():
        return get_backend("numpy").kernel(layer.system().to_numpy(), length)


def moved(layer, length, roundings):
    """Bound on the change of K, per channel and step, to first order: Σ over the stored numbers of |∂K/∂θ| |Δθ|.

    Channels do not depend on each other, so one entry of all of them is changed at once.  Central differences.
    """
    total = np.zeros((layer.n_channels, length))
    for name, size in roundings.items():
        values = getattr(layer.continuous, name).data
        for entry in np.ndindex(*values.shape[1:]) if name != "P" else np.ndindex(1, *values.shape[2:]):
            index = (slice(None), *entry) if name != "P" else (0, slice(None), *entry[1:])
            kept = values[index].clone()
            step = 1e-6 * (1 + kept.abs())
            ends = []
            for sign in (1, -1):
                values[index] = kept + sign * step
                ends.append(kernel(layer, length))
            values[index] = kept
            slope = (ends[0] - ends[1]) / (2 * step.numpy()[:, None])
            total += abs(slope) * size(kept.numpy())[:, None]
    return total


@pytest.mark.parametrize("names", [version3, version4])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_is_the_published_one(case, names):
    K = golden(case)["K"]
    layer = imported(names(case), case)
    assert layer.continuous.log_dt.dtype == torch.float64
    # 1e-12 of max|K| is what the values are given with.  What the arrays of this test lose by being logarithms is less:
    # log and exp within 1 ulp, 2u each, give δt and Re λ a relative error of (2|log| + 2)u.
    logs = {name: lambda log: (2 * abs(log) + 2) * U for name in ("log_decay", "log_dt")}
    assert moved(layer, K.shape[1], logs).max() < 1e-12 * abs(K).max()
    assert abs(kernel(layer, K.shape[1]) - K).max() <= 1e-12 * abs(K).max()


@pytest.mark.parametrize("case", SMALL)
def test_the_layer_answers_an_impulse_with_kernel_and_feedthrough(case):
    g = golden(case)
    H, L = g["K"].shape
    D = np.arange(1.0, H + 1)
    layer = imported({"kernel." + k: v for k, v in version4(case).items()} | {"D": D[None]}, case, feedthrough=True)
    impulse = torch.zeros(1, L, H, dtype=torch.float64)
    impulse[0, 0] = 1.0
    y = layer(impulse)[0].T.detach().numpy()
    y[:, 0] -= D
    # D + K_0 − D loses at most 2 u |D| more.
    assert abs(y - g["K"]).max() <= 1e-12 * abs(g["K"]).max() + 2 * U * H


@pytest.mark.parametrize("case", SMALL)
def test_float32_arrays_are_copied_bit_for_bit(case):
    g = golden(case)
    arrays = {k: torch.tensor(v, dtype=torch.float32 if v.ndim else torch.int64) for k, v in version3(case).items()}
    layer = imported(arrays, case)
    held = layer.continuous
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    real, imaginary = ("inv_w_real", "w_imag") if "P" in arrays else ("inv_A_real", "A_imag")
    for ours, theirs in {
        "log_dt": "log_dt", "log_decay": real, "frequency": imaginary, "B": "B", "C": "C", "P": "P"
    }.items():  # fmt: skip
        if theirs in arrays:
            assert torch.equal(getattr(held, ours), arrays[theirs].reshape(getattr(held, ours).shape)), ours
    # Every stored number is rounded to float32, by at most 2⁻²⁴ of itself.
    layer = layer.double()
    sizes = dict.fromkeys(
        ["log_dt", "log_decay", "frequency", "B", "C"] + ["P"] * ("P" in arrays), lambda v: 2.0**-24 * abs(v)
    )
    bound = moved(layer, g["K"].shape[1], sizes) + 1e-12 * abs(g["K"]).max()
    # 1.01: terms of second order, with relative errors of 1e-6 in the arguments.
    assert (abs(kernel(layer, g["K"].shape[1]) - g["K"]) <= 1.01 * bound).all()
    assert bound.max() < 1e-4 * abs(g["K"]).max()


def corrected(case, length, C=None):
    """C̃ = Cᵀ(I − Ā^L) by its definition, and the bound of `from_published` on what undoing it does to K."""
    g = golden(case)
    A, B, full = ContinuousSystem(g["w"], g["B"], g["C"] if C is None else C, g["dt"], g["P"]).full_matrices()
    N = A.shape[-1]
    unit = np.eye(N)
    C, bound = [], []
    for h, dt in enumerate(g["dt"]):
        left = unit - dt / 2 * A[h]
        A_bar = np.linalg.solve(left, unit + dt / 2 * A[h])
        B_bar = dt * np.linalg.solve(left, B[h])
        factor = unit - np.linalg.matrix_power(A_bar, length)
        C.append((full[h] @ factor)[: N // 2])
        inverse = np.linalg.norm(np.linalg.inv(factor), 2)
        # |ΔK_i| ≤ ‖ΔC‖ ‖Āⁱ B̄‖ ≤ ‖ΔC‖ ‖B̄‖.
        size = np.linalg.norm(full[h]) * np.linalg.norm(B_bar)
        bound.append(U * N * length * np.linalg.cond(left) * inverse * size)
    return np.array(C), np.array(bound)


@pytest.mark.parametrize("names", [version3, version4])
@pytest.mark.parametrize("case", S4)
def test_the_length_correction_is_undone(case, names):
    K = golden(case)["K"]
    C, bound = corrected(case, K.shape[1])
    assert abs(C - golden(case)["C"]).max() > 0.1  # there is something to undo
    K_found = kernel(imported(names(case, C, K.shape[1])), K.shape[1])
    # Twice: this test applies the correction with the same errors as the import undoes it.
    allowed = 1e-12 * abs(K).max() + 2 * bound[:, None]
    assert allowed.max() < 1e-5 * abs(K).max()
    assert (abs(K_found - K) <= allowed).all()


def test_a_doubled_length_is_that_of_twice_the_length():
    """The published code doubles L by C̃ (I + Ā^L)."""
    case, L = "dplr-legs/N8/L64", 32
    g = golden(case)
    A, _, _ = ContinuousSystem(g["w"], g["B"], g["C"], g["dt"], g["P"]).full_matrices()
    C, _ = corrected(case, L)
    doubled = []
    for h, dt in enumerate(g["dt"]):
        half = dt / 2 * A[h]
        A_bar = np.linalg.solve(np.eye(8) - half, np.eye(8) + half)
        both = np.concatenate([C[h], C[h].conj()])
        doubled.append((both + both @ np.linalg.matrix_power(A_bar, L))[:4])
    found = kernel(imported(version3(case, np.array(doubled), 2 * L)), 64)
    _, bound = corrected(case, 2 * L)
    assert (abs(found - g["K"]) <= 1e-12 * abs(g["K"]).max() + 2 * bound[:, None]).all()


@pytest.mark.parametrize("length", [64, 63])
def test_version_1_stores_nodes_instead_of_the_length(length):
    case = "dplr-legs/N8/L64"
    C, bound = corrected(case, length)
    arrays = version3(case, C)
    del arrays["L"]
    arrays["log_w_real"] = arrays.pop("inv_w_real")
    nodes = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length).astype(np.complex64)
    with np.errstate(divide="ignore", invalid="ignore"):
        nodes_z = 2 * (1 - nodes) / (1 + nodes)
    found = kernel(imported(arrays | {"omega": pairs(nodes), "z": pairs(nodes_z)}), 64)
    K = golden(case)["K"]
    assert (abs(found - K) <= 1e-12 * abs(K).max() + 2 * bound[:, None]).all()
    with pytest.raises(ParameterError, match="omega does not hold nodes"):
        imported(arrays | {"omega": pairs(nodes[:-2])})


def test_a_length_can_be_given_and_must_be():
    case = "dplr-legs/N8/L64"
    C, bound = corrected(case, 64)
    arrays = version3(case, C, 64)
    K = golden(case)["K"]
    with pytest.raises(ParameterError, match="kernel_length is 32, but the arrays say 64"):
        imported(arrays, kernel_length=32)
    del arrays["L"]
    with pytest.raises(ParameterError, match="the kernel length is missing"):
        imported(arrays)
    for length in (-1, True, 10.5, "10"):
        with pytest.raises(ParameterError, match=rf"kernel_length is {length!r}; give a whole number from 0"):
            imported(arrays, kernel_length=length)
    for length in (np.nan, np.inf):
        with pytest.raises(ParameterError, match=r"L is .*; a kernel length is one whole number"):
            imported(arrays | {"L": np.array(length)})
    found = kernel(imported(arrays, kernel_length=64), 64)
    assert (abs(found - K) <= 1e-12 * abs(K).max() + 2 * bound[:, None]).all()
    with pytest.raises(ParameterError, match=r"L is 2\.5; a kernel length is one whole number"):
        imported(arrays | {"L": np.array(2.5)})
    with pytest.raises(ParameterError, match="belongs to S4"):
        imported(version3(SMALL[2]), SMALL[2], kernel_length=64)


def test_the_minimal_s4d_is_zoh_with_b_of_one():
    case = "diag-lin-zoh/N8/L16"
    g = golden(case)
    assert (g["B"] == 1).all()
    arrays = {
        "kernel.C": pairs(g["C"]), "kernel.log_dt": np.log(g["dt"]), "kernel.log_A_real": np.log(-g["w"].real),
        "kernel.A_imag": g["w"].imag, "D": np.zeros(3),
    }  # fmt: skip
    layer = from_published(arrays, backend="first")
    assert layer.discretization == "zoh"
    assert abs(kernel(layer, 16) - g["K"]).max() <= 1e-12 * abs(g["K"]).max()
    with pytest.raises(ParameterError, match="always zoh"):
        from_published(arrays, discretization="bilinear")


@pytest.mark.parametrize("case", ["diag-lin-zoh/N8/L16", "diag-inv-bilinear/N8/L64"])
def test_s4d_of_version_2_has_b_in_its_c(case):
    """Its kernel registers C B as C, log_dt, log_w_real and w_imag; both values of disc."""
    g = golden(case)
    arrays = {
        "C": pairs(g["C"] * g["B"])[None], "log_dt": np.log(g["dt"]), "log_w_real": np.log(-g["w"].real),
        "w_imag": g["w"].imag,
    }  # fmt: skip
    assert abs(kernel(imported(arrays, case), g["K"].shape[1]) - g["K"]).max() <= 1e-12 * abs(g["K"]).max()


@pytest.mark.parametrize(
    ("real", "imaginary"), [("A_real", "A_imag"), ("inv_A_real", "A_imag"), ("inv_w_real", "w_imag")]
)
def test_b_is_one_only_where_the_published_layer_has_none(real, imaginary):
    case = SMALL[2]
    g = golden(case)
    arrays = {
        "C": pairs(g["C"])[None], "log_dt": np.log(g["dt"]), real: np.log(-g["w"].real), imaginary: g["w"].imag,
    }  # fmt: skip
    with pytest.raises(ParameterError, match=rf"B is missing: .* with {real} has it\. Only the S4D with log_A_real"):
        imported(arrays, case)
    imported(arrays | {"B": pairs(np.ones((3, 4)))}, case)


def test_channels_take_the_sets_they_share_in_turn():
    """einops' 't n -> (v t) n': channel h has set h mod n_ssm."""
    g, own = golden("dplr-legs/N8/L64"), version4("dplr-legs/N8/L64")
    w, B, P = g["w"][:2], g["B"][:2], g["P"][:, :2]
    w, B, P = w * np.array([[1.0], [1.5]]), B * np.array([[1.0], [2.0]]), P * np.array([[1.0], [0.5]])
    rng = np.random.default_rng(0)
    C, dt = rng.normal(size=(6, 4)) + 1j * rng.normal(size=(6, 4)), np.linspace(0.01, 0.1, 6)
    own |= {"A_real": np.log(-w.real), "A_imag": -w.imag, "B": pairs(B)[None], "P": pairs(P), "C": pairs(C)[None]}
    layer = imported(own | {"inv_dt": np.log(dt)[:, None]})
    turns = [0, 1, 0, 1, 0, 1]
    expected = ContinuousSystem(w[turns], B[turns], C, dt, P[:, turns]).discretize("bilinear")
    K = get_backend("numpy").kernel(expected, 16)
    assert abs(kernel(layer, 16) - K).max() <= 1e-12 * abs(K).max()
    other = ContinuousSystem(w[[0, 0, 0, 1, 1, 1]], B[turns], C, dt, P[:, turns]).discretize("bilinear")
    assert abs(get_backend("numpy").kernel(other, 16) - K).max() > 1e-3 * abs(K).max()


@pytest.mark.parametrize("size", ["L16_N4_p2", "L32_N8_p3"])
def test_a_recorded_liquid_layer_has_the_linear_part_of_its_import(size):
    """The file has C as the authors' liquid term uses it; their kernel, and so a checkpoint, has its conjugate."""
    case = f"polyb/allcombs=True/diag/{size}"
    with np.load(DATA / "published_liquid.npz") as data:
        u, y, w, B, C, dt, D = (data[f"{case}/{name}"] for name in ("u", "y_linear", "w", "B", "C", "dt", "D"))
    kernel_arrays = {
        "C": pairs(C.conj())[None], "B": pairs(B), "A": pairs(w), "inv_A_real": np.log(-w.real), "A_imag": w.imag,
        "log_dt": np.log(dt),
    }  # fmt: skip
    arrays = {f"block.layer.kernel.kernel.{name}": values for name, values in kernel_arrays.items()}
    layer = from_published(
        arrays | {"block.layer.D": D[None]}, prefix="block.layer.", discretization="bilinear", backend="first"
    )
    found = layer(torch.tensor(u).transpose(1, 2)).detach().transpose(1, 2).numpy()
    # 5e-5 of the largest is what the recorded values, float32 throughout, are given with.
    assert abs(found - y).max() <= 5e-5 * abs(y).max()


def test_transforms_of_other_options():
    case = SMALL[2]
    g = golden(case)
    decay, dt = -g["w"].real, g["dt"]
    inverse = {
        "none": lambda x: x, "softplus": lambda x: np.log(np.expm1(x)), "sigmoid": lambda x: -np.log(1 / x - 1),
    }  # fmt: skip
    for name, of in inverse.items():
        arrays = version4(case) | {"A_real": of(decay), "inv_dt": of(dt)[:, None]}
        layer = imported(arrays, case, real_transform=name, dt_transform=name)
        # For δt = 1e-3, log(expm1(x)) is 7 and rounds to 7u of x; four roundings more on the way there and back.
        assert np.allclose(np.exp(layer.continuous.log_dt.detach().numpy()), dt, rtol=12 * U * 2, atol=0)
        assert np.allclose(np.exp(layer.continuous.log_decay.detach().numpy()), decay, rtol=12 * U * 2, atol=0)
        with pytest.raises(ParameterError, match="log_dt is a logarithm"):
            imported(version3(case), case, dt_transform=name)
    with pytest.raises(ParameterError, match="unknown real_transform 'relu'; allowed: exp, none, sigmoid, softplus"):
        imported(version4(case), case, real_transform="relu")


@pytest.mark.parametrize(
    ("option", "name", "what"), [("real_transform", "A_real", "-Re λ"), ("dt_transform", "inv_dt", "dt")]
)
def test_stored_logarithms_are_not_taken_as_they_are(option, name, what):
    case = SMALL[2]
    arrays = version4(case)
    for stored in (-3.0, 0.0):
        given = arrays | {name: np.full_like(arrays[name], stored)}
        with pytest.raises(
            ParameterError,
            match=rf"{name} holds {stored:g}, but {option} is 'none': .* for {what}, which is > 0\. Leave",
        ):
            imported(given, case, **{option: "none"})


def test_a_file_is_read_like_a_mapping(tmp_path):
    arrays = {f"kernel.{name}": values for name, values in version4(SMALL[0]).items()} | {"D": np.ones((1, 3))}
    np.savez(tmp_path / "layer.npz", **arrays)
    found, expected = (from_published(source, backend="first") for source in (tmp_path / "layer.npz", arrays))
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in found.state_dict().items())


def whole_model():
    """Two blocks with what stands around a layer in version 4."""
    source = {"encoder.weight": np.ones((3, 1))}
    for i in range(2):
        block = {f"layer.kernel.{name}": values for name, values in version4(SMALL[i]).items()}
        block |= {"layer.D": np.full((1, 3), i), "output_linear.weight": np.ones((6, 3)), "norm.weight": np.ones(3)}
        source |= {f"layers.{i}.{name}": np.asarray(values, float) for name, values in block.items()}
    return source


def test_the_prefix_picks_one_layer_of_a_model():
    for i in range(2):
        layer = from_published(whole_model(), prefix=f"layers.{i}.layer.", backend="first")
        assert abs(kernel(layer, 64) - golden(SMALL[i])["K"]).max() <= 1e-12 * abs(golden(SMALL[i])["K"]).max()
        assert (i == layer.D).all()


def test_what_is_there_but_not_read_must_be_named():
    source = {k.removeprefix("layers.0.").replace("layer.", ""): v for k, v in whole_model().items() if "layers.0" in k}
    with pytest.raises(ParameterError, match=r"not known: norm.weight, output_linear.weight. .*ignore="):
        from_published(source)
    from_published(source, ignore=("output_linear", "norm.weight"))
    for one in ("output_linear", "CD", ""):
        with pytest.raises(ParameterError, match=rf"ignore is the string '{one}'; .*ignore=\('{one}',\)"):
            from_published(source, ignore=one)
    with pytest.raises(ParameterError, match="ignore has 'output', which nothing"):
        from_published(source, ignore=("output", "output_linear", "norm"))
    for one in ("kernel", "kernel.B"):
        with pytest.raises(ParameterError, match=rf"ignore has '{one}', but the kernel consists of these arrays"):
            from_published(source, ignore=("output_linear", "norm", one))
    with pytest.raises(ParameterError, match="source has the name 1; arrays go by names"):
        from_published({**source, 1: np.ones(3)}, ignore=("output_linear", "norm"))


def test_options_reach_the_layer():
    layer = imported(version4(SMALL[0]), mode="truncated", order=3, frozen=("Lambda", "dt"))
    assert (layer.spec.mode, layer.spec.order, layer.D) == ("truncated", 3, None)
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trained == {"continuous.B", "continuous.C", "continuous.P"}
    assert imported(version4(SMALL[0])).spec.mode == "s4"
    with pytest.raises(ParameterError, match="n_state, reverse_lag: decided by the arrays"):
        imported(version4(SMALL[0]), n_state=8, reverse_lag=1)


def both_directions(case, names, length):
    """The arrays of a bidirectional layer, C of S4 as it is after a run of that length, and K of each direction."""
    g = golden(case)
    P = g.get("P")
    channels = [g["C"], 0.5 * g["C"][:, ::-1] + 0.25]
    kernels, bounds = [], []
    for C in channels:
        system = ContinuousSystem(g["w"], g["B"], C, g["dt"], P).discretize(discretization(case))
        kernels.append(get_backend("numpy").kernel(system, length))
    stored = channels
    if P is not None:
        stored, bounds = zip(*(corrected(case, length, C) for C in channels), strict=True)
    arrays = names(case, C=stored[0], length=length) | {"C": pairs(np.stack(stored))}
    H = len(g["w"])
    arrays = {f"kernel.{name}": values for name, values in arrays.items()} | {"D": np.arange(1.0, H + 1)[None]}
    return arrays, np.stack(kernels), np.max(bounds, 0) if P is not None else np.zeros(H)


def published_bidirectional(kernels, D, u):
    """y of u (batch, H, L) as versions 1 to 4 compute it: one kernel of 2L, one FFT of 2L."""
    L = u.shape[-1]
    forward, backward = kernels
    K = np.pad(forward, ((0, 0), (0, L))) + np.pad(backward[:, ::-1], ((0, 0), (L, 0)))
    y = np.fft.irfft(np.fft.rfft(u, 2 * L) * np.fft.rfft(K, 2 * L), 2 * L)[..., :L]
    return y + D[:, None] * u


@pytest.mark.parametrize("names", [version3, version4])
@pytest.mark.parametrize("case", SMALL)
def test_a_bidirectional_layer_gives_the_published_outputs(case, names):
    L = golden(case)["K"].shape[1]
    arrays, kernels, bound = both_directions(case, names, L)
    u = np.random.default_rng(0).normal(size=(2, kernels.shape[1], L))
    expected = published_bidirectional(kernels, arrays["D"][0], u)
    layer = imported(arrays, case, feedthrough=True)
    assert (layer.bidirectional, layer.reverse_lag) == (True, 1)
    found = layer(torch.tensor(u).transpose(1, 2)).detach().transpose(1, 2).numpy()
    # Both kernels within 1e-12 of max|K| and twice the bound of the length correction; each of the 2L products of y
    # takes part in at most 20 roundings, recurrence or FFT, 20 u = 3e-15.
    each = 2e-12 * abs(kernels).max() + 2 * bound[:, None]
    allowed = each * abs(u).sum(-1, keepdims=True) + 8 * U * abs(expected)
    assert (abs(found - expected) <= allowed).all()
    # It is not what a second direction that begins at the present input gives.
    layer.reverse_lag = 0
    other = layer(torch.tensor(u).transpose(1, 2)).detach().transpose(1, 2).numpy()
    assert abs(other - expected).max() > 1e3 * allowed.max()
    # Orders above the first are new, the linear part is not.
    linear = imported(arrays, case, feedthrough=True, mode="truncated", order=1)
    found = linear(torch.tensor(u).transpose(1, 2)).detach().transpose(1, 2).numpy()
    assert (abs(found - expected) <= allowed).all()


def test_without_d_one_must_say_that_there_are_two_directions():
    case = SMALL[2]
    arrays, kernels, _ = both_directions(case, version4, 64)
    u = np.random.default_rng(0).normal(size=(1, 3, 64))
    for given in (arrays, {name: values for name, values in arrays.items() if name != "D"}):
        layer = imported(given, case, bidirectional=True)
        assert layer.D is None
        found = layer(torch.tensor(u).transpose(1, 2)).detach().transpose(1, 2).numpy()
        expected = published_bidirectional(kernels, np.zeros(3), u)
        assert (abs(found - expected) <= 2e-12 * abs(kernels).max() * abs(u).sum(-1, keepdims=True)).all()
    # With a D in the file, it tells.
    assert imported(arrays, case).bidirectional


def test_nothing_random_is_drawn():
    state = torch.random.get_rng_state()
    imported(version4(SMALL[0]))
    assert torch.equal(torch.random.get_rng_state(), state)


def without(*names):
    return lambda arrays: {name: values for name, values in arrays.items() if name not in names}


def changed(**values):
    return lambda arrays: arrays | {name: of(arrays) for name, of in values.items()}


def twice(values):
    return np.concatenate([values, values])


REFUSED = [
    (version4, without("C"), {}, ParameterError, r"C is missing under prefix '.*', beside A_imag, A_real"),
    (lambda case: {"D": np.ones(3)}, lambda a: a, {}, ParameterError, "C is missing. There is none under any prefix"),
    (version4, without("B"), {}, ParameterError, "B is missing: S4"),
    (version4, without("B", "P", "l_kernel"), {}, ParameterError, "B is missing: a published layer with A_real has it"),
    (version4, without("inv_dt"), {}, ParameterError, "the step sizes is missing; it is one of: log_dt, inv_dt"),
    (version4, without("A_real"), {}, ParameterError, "the real part of the diagonal is missing; it is one of"),
    (version4, without("A_imag"), {}, ParameterError, "A_imag is missing, which goes with A_real. A real-valued"),
    (version3, without("w_imag"), {}, ParameterError, "w_imag is missing, which goes with inv_w_real"),
    (version4, changed(w_imag=lambda a: a["A_imag"]), {}, ParameterError, "w_imag does not go with A_real"),
    (version4, changed(log_w_real=lambda a: a["A_real"]), {}, ParameterError, "under two names: log_w_real, A_real"),
    (version4, changed(A=lambda a: a["B"]), {}, ParameterError, "A, a full or complex matrix, is not read"),
    (version4, changed(Q=lambda a: a["P"]), {}, ParameterError, "not known: Q. An array that is left out may change"),
    (version4, lambda a: a, {"feedthrough": True}, ParameterError, "D is missing under prefix ''"),
    (version4, lambda a: a, {"discretization": "zoh"}, ParameterError, "is 'zoh', but the published layer of these"),
    (version4, lambda a: a, {"discretization": "euler"}, ParameterError, "unknown discretization 'euler'; allowed: b"),
    (version4, changed(C=lambda a: twice(a["C"])), {}, ParameterError, "C has 2 channels, and there is no D to tell"),
    (
        version4, changed(C=lambda a: twice(a["C"])), {"bidirectional": False}, ParameterError,
        r"C has 2 channels, several outputs .*C\[i : i \+ 1\], and its D",
    ),
    (version4, lambda a: a, {"bidirectional": True}, ParameterError, "True, but C has one channel: one direction"),
    (
        version4, changed(D=lambda a: np.ones((1, 3))), {"bidirectional": True}, ParameterError,
        "bidirectional is True, but C has 1 channels and D 1; leave it out",
    ),
    (
        version4, changed(C=lambda a: twice(a["C"]), D=lambda a: np.ones((1, 3))), {"bidirectional": False},
        ParameterError, "bidirectional is False, but C has 2 channels and D 1",
    ),
    (
        version4, changed(C=lambda a: twice(twice(a["C"])), D=lambda a: np.ones((2, 3))), {"feedthrough": True},
        ParameterError, r"C has 4 channels, several outputs .* C\[\[i, i \+ 2\]\], and its D",
    ),
    (
        version4, changed(C=lambda a: twice(a["C"]), D=lambda a: np.ones((2, 3))), {"feedthrough": True},
        ParameterError, r"C has 2 channels, several outputs .* C\[i : i \+ 1\], and its D",
    ),
    (version4, changed(inv_dt=lambda a: np.ones((3, 4))), {}, ParameterError, "a step size for each mode"),
    (version4, changed(inv_dt=lambda a: np.ones(2)), {}, ShapeError, r"inv_dt has shape \(2,\); with C for 3"),
    (version4, changed(A_real=lambda a: a["A_real"][:2]), {}, ShapeError, r"n_ssm a divisor of 3"),
    (version4, changed(A_imag=lambda a: a["A_imag"][:1]), {}, ShapeError, r"A_imag has shape \(1, 4\); with A_real"),
    (version4, changed(B=lambda a: a["B"][..., :1, :]), {}, ShapeError, r"B has shape \(1, 3, 1, 2\)"),
    (version4, changed(P=lambda a: a["P"][0]), {}, ShapeError, r"P has shape \(3, 4, 2\)"),
    (version4, changed(C=lambda a: a["C"][..., 0]), {}, ShapeError, r"C has shape \(1, 3, 4\)"),
    (
        version4, changed(D=lambda a: np.ones((1, 2))), {"feedthrough": True}, ShapeError,
        r"D has shape \(1, 2\); with C for 3 channels",
    ),
    (
        version4, changed(D=lambda a: np.full((1, 3), np.inf)), {"feedthrough": True}, ParameterError,
        "D holds NaN or infinite values",
    ),
    (version4, changed(B=lambda a: np.full_like(a["B"], np.nan)), {}, ParameterError, "B holds NaN or infinite"),
    (version4, changed(inv_dt=lambda a: np.array(["a", "b", "c"])), {}, DTypeError, "inv_dt has dtype <U1"),
    (version4, changed(inv_dt=lambda a: np.ones(3, int)), {}, DTypeError, "inv_dt has dtype torch.int64"),
    (lambda case: {"state_dict": version4(case)}, lambda a: a, {}, ParameterError, "whole checkpoint: pass what it"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "change", "options", "error", "message"), REFUSED, ids=[r[-1][:40] for r in REFUSED])
def test_what_has_no_counterpart_is_refused(names, change, options, error, message):
    with pytest.raises(error, match=message):
        imported(change(names(SMALL[0])), **options)


def test_the_prefixes_of_kernels_are_named():
    with pytest.raises(ParameterError, match=r"kernels under: 'layers\.0\.layer\.', 'layers\.1\.layer\.'"):
        from_published(whole_model())


def test_the_discretization_of_s4d_must_be_given():
    case = SMALL[2]
    with pytest.raises(ParameterError, match="discretization is missing: arrays of S4D do not tell"):
        imported(version4(case), discretization=None)
    assert imported(version4(SMALL[0]), discretization=None).discretization == "bilinear"
