from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backend import Arithmetic, Backend, Capabilities, Gradients
from liquid_ssm.compute import problem_of
from liquid_ssm.modes import State
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.contract import BackendFault, CheckedBackend, check_array, described
from liquid_ssm.testing.strategies import random_system

SYSTEM = random_system("diagonal", n_channels=2, n_modes=3)
MIMO = random_system("mimo", n_channels=2, n_modes=3)
U = np.random.default_rng(0).normal(size=(1, 2, 8))
STATE = np.ones((1, 2, 3), complex)
Y, FINAL = np.zeros((1, 2, 8)), np.zeros((1, 2, 3), complex)


class Made(Backend):
    """A backend whose methods are given to it."""

    name = "made"
    capabilities = Capabilities(primitives={"scan": ("diagonal", "mimo")})

    def __init__(self, **methods):
        self.__dict__.update(methods)


def checked(**methods):
    return CheckedBackend(Made(**methods))


def fault_of(call):
    with pytest.raises(BackendFault) as caught:
        call()
    return caught.value


def scan_returning(result, system=SYSTEM, u=U, state=None):
    return fault_of(lambda: checked(scan=lambda *_, **__: result).scan(system, u, state, liquid=True))


def test_a_good_backend_computes_the_same_and_declares_the_same():
    plain = get_backend("scipy")
    backend = CheckedBackend(plain)
    for mode in ("s4", "liquid", "truncated", "kb", "pb"):
        expected = ls.apply(SYSTEM, U, mode=mode, backend="scipy")
        assert np.array_equal(ls.apply(SYSTEM, U, mode=mode, backend=backend), expected)
    for name in ("name", "requires", "install", "capabilities", "linear_method", "arithmetic"):
        assert getattr(backend, name) == getattr(plain, name)
    problem = problem_of(random_system("dense"), U, ModeSpec("liquid"))
    assert backend.reject(problem) == plain.reject(problem) is not None


def test_packages_that_are_missing_stay_missing():
    backend = Made(missing_packages=lambda: ("a_package",))
    assert CheckedBackend(backend).missing_packages() == ("a_package",)


def test_only_primitives_that_the_backend_has_can_be_called():
    backend = checked(scan=lambda *_, **__: (Y, FINAL))
    assert hasattr(backend, "scan")
    assert not hasattr(backend, "cascade")
    assert not hasattr(backend, "anything_else")


@pytest.mark.parametrize(
    ("result", "kind", "said"),
    [
        (Y, "type", "scan returned ndarray; expected the pair (y, final_state)"),
        (None, "type", "scan returned NoneType"),
        ([Y, FINAL], "type", "scan returned list"),
        ((Y, FINAL, FINAL), "type", "scan returned tuple"),
        ((Y.tolist(), FINAL), "type", "y of scan is a builtins.list, not a NumPy array"),
        ((Y, None), "type", "final_state of scan is a builtins.NoneType"),
        ((Y[..., 1:], FINAL), "shape", "y of scan has shape (1, 2, 7); expected (1, 2, 8)"),
        ((Y, FINAL[0]), "shape", "final_state of scan has shape (2, 3); expected (1, 2, 3)"),
        ((Y.astype(np.float32), FINAL), "dtype", "y of scan has dtype float32; expected float64"),
        ((Y + 0j, FINAL), "dtype", "y of scan has dtype complex128; expected float64"),
        ((Y.astype(">f8"), FINAL), "dtype", "y of scan has dtype >f8"),
        ((Y, FINAL.real), "dtype", "final_state of scan has dtype float64; expected complex128"),
        ((np.where(U[0, 1, 3] == U, np.nan, Y), FINAL), "not finite", "y of scan is nan at index (0, 1, 3)"),
        ((np.where(U[0, 0, 0] == U, -np.inf, Y), FINAL), "not finite", "y of scan is -inf at index (0, 0, 0)"),
        ((Y, FINAL * np.nan), "not finite", "final_state of scan is (nan+nanj) at index (0, 0, 0)"),
    ],
)
def test_what_scan_returns(result, kind, said):
    with np.errstate(invalid="ignore"):
        fault = scan_returning(result)
    assert fault.kind == kind
    assert said in str(fault)


def test_states_have_the_shape_of_their_structure():
    fault = scan_returning((Y, FINAL), MIMO)
    assert "final_state of scan has shape (1, 2, 3); expected (1, 3)" in str(fault)
    assert checked(scan=lambda *_, **__: (Y, FINAL[:, 0])).scan(MIMO, U, liquid=True)[1].shape == (1, 3)


def test_states_of_real_systems_are_real():
    real = ls.DenseSystem(np.eye(3)[None] / 2, np.ones((1, 3)), np.ones((1, 3)))
    backend = checked(scan=lambda *_, **__: (Y[:, :1], FINAL.real[:, :1]))
    assert backend.scan(real, U[:, :1], liquid=True)[1].dtype == np.float64


@pytest.mark.parametrize(
    ("call", "results"),
    [
        (
            lambda b: b.cascade(SYSTEM, U, order=2, kind="truncated"),
            [
                ((Y, np.zeros((1, 2, 2, 3), complex)), None),
                ((Y, FINAL), "final states of cascade has shape (1, 2, 3); expected (1, 2, 2, 3)"),
                ((Y[0], np.zeros((1, 2, 2, 3), complex)), "y of cascade has shape (2, 8)"),
            ],
        ),
        (lambda b: b.cascade(SYSTEM, U, order=2, kind="chain", window=3), [((Y, None), None)]),
        (
            lambda b: b.correlate(U, order=3, kind="elementary"),
            [
                ((np.zeros((2, 1, 2, 8)), np.zeros((3, 1, 2))), None),
                ((np.zeros((2, 1, 2, 8)), None), None),
                ((Y, None), "terms of correlate has shape (1, 2, 8); expected (2, 1, 2, 8)"),
                ((np.zeros((2, 1, 2, 8)), np.zeros((3, 2))), "sums of correlate has shape (3, 2); expected (3, 1, 2)"),
            ],
        ),
        (
            lambda b: b.kernel(SYSTEM, 5),
            [(np.zeros((2, 5)), None), (np.zeros((2, 6)), "kernel has shape (2, 6); expected (2, 5)")],
        ),
        (
            lambda b: b.convolve(np.zeros((2, 4)), U),
            [(Y, None), (Y.astype(np.float32), "convolve has dtype float32; expected float64")],
        ),
    ],
)
def test_the_other_primitives(call, results):
    for result, said in results:
        backend = checked(**dict.fromkeys(("cascade", "correlate", "kernel", "convolve"), lambda *_, r=result, **__: r))
        if said is None:
            call(backend)
        else:
            assert said in str(fault_of(lambda b=backend: call(b)))


def test_gradients():
    good = {name: np.zeros_like(array) for name, array in SYSTEM.parameters.items()}

    def call(result):
        backend = checked(scan_vjp=lambda *_, **__: result)
        return backend.scan_vjp(SYSTEM, U, None, U, None, liquid=True)

    call(Gradients(good, U, None))
    for result, said in [
        ((good, U, None), "scan_vjp returned tuple; expected Gradients"),
        (Gradients(good, U[0], None), "gradient of u has shape (2, 8)"),
        (Gradients({**good, "C": good["C"][0]}, U, None), "gradient of C has shape (3,); expected (2, 3)"),
        (Gradients({**good, "C": good["C"].real}, U, None), "gradient of C has dtype float64; expected complex128"),
        (Gradients({n: g for n, g in good.items() if n != "C"}, U, None), "gradient of C is a builtins.NoneType"),
    ]:
        assert said in str(fault_of(lambda result=result: call(result)))


def test_gradients_of_all_orders_together():
    good = {name: np.zeros_like(array) for name, array in SYSTEM.parameters.items()}
    earlier = np.zeros((1, 2, 2))

    def call(result):
        backend = checked(joint_scan_vjp=lambda *_, **__: result)
        return backend.joint_scan_vjp(SYSTEM, U, U, order=3)

    call(Gradients(good, U, (FINAL, earlier)))
    for result, said in [
        ((good, U, None), "joint_scan_vjp returned tuple; expected Gradients"),
        (Gradients(good, U, FINAL), "state of joint_scan_vjp returned ndarray; expected the pair"),
        (Gradients(good, U, (FINAL[0], earlier)), "gradient of the state of joint_scan_vjp has shape (2, 3)"),
        (Gradients(good, U, (FINAL, U)), "gradient of earlier inputs of joint_scan_vjp has shape (1, 2, 8)"),
        (Gradients({**good, "C": good["C"][0]}, U, (FINAL, earlier)), "gradient of C has shape (3,); expected (2, 3)"),
    ]:
        assert said in str(fault_of(lambda result=result: call(result)))


def test_gradients_of_correlations_that_are_added():
    responses, sums = np.ones((2, 2)), np.ones((3, 1, 2))

    def call(result, **given):
        backend = checked(add_correlations_vjp=lambda *_, **__: result)
        return backend.add_correlations_vjp(U, responses, U, None, order=3, kind="elementary", **given)

    call((U, responses, None, None))
    call((U, responses, sums, None), sums=sums)
    for result, said in [
        (U, "add_correlations_vjp returned ndarray; expected four gradients"),
        ((U, responses), "add_correlations_vjp returned tuple; expected four gradients"),
        ((U[..., 1:], responses, sums, None), "gradient of u has shape (1, 2, 7); expected (1, 2, 8)"),
        ((U, responses[:1], sums, None), "gradient of responses has shape (1, 2); expected (2, 2)"),
        ((U, responses, None, None), "gradient of sums is a builtins.NoneType"),
    ]:
        assert said in str(fault_of(lambda result=result: call(result, sums=sums)))


class Late:
    """Writes into an argument during the call."""

    def __init__(self, pick):
        self.pick = pick

    def __call__(self, *args, **options):
        array = self.pick(*args, **options)
        array.flags.writeable = True
        array.flat[0] += 1
        return Y, FINAL


@pytest.mark.parametrize(
    ("pick", "shape"),
    [
        (lambda system, u, state, **_: u, (1, 2, 8)),
        (lambda system, u, state, **_: state, (1, 2, 3)),
        (lambda system, u, state, **_: system.A_bar, (2, 3)),
        (lambda system, u, state, **_: system.C, (2, 3)),
    ],
)
def test_arguments_are_not_written_to(pick, shape):
    system = ls.DiagonalSystem(*(a.copy() for a in SYSTEM.parameters.values()))
    fault = fault_of(lambda: checked(scan=Late(pick)).scan(system, U.copy(), STATE.copy(), liquid=True))
    assert fault.kind == "mutated"
    assert f"scan wrote into an array of shape {shape}" in str(fault)


@pytest.mark.parametrize("inside", [lambda a: (a,), lambda a: [None, (a,)], lambda a: {"x": a}, lambda a: State(a)])
def test_arrays_inside_arguments_are_found(inside):
    state = STATE.copy()

    def scan(system, u, state=None, **_):
        target[0] += 1
        return Y, FINAL

    target = state
    fault = fault_of(lambda: checked(scan=scan).scan(SYSTEM, U, state=inside(state), liquid=True))
    assert fault.kind == "mutated"


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(5), MemoryError(), AssertionError("no")])
def test_whatever_is_raised_is_a_fault_with_its_place(error):
    def scan(*_, **__):
        raise error

    fault = fault_of(lambda: checked(scan=scan).scan(SYSTEM, U, liquid=True))
    assert fault.kind == "raised"
    assert fault.__cause__ is error
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    line = scan.__code__.co_firstlineno + 1
    assert str(fault) == f"scan raised {text} (test_contract.py, line {line})"


def test_errors_of_libraries_are_placed_in_the_code_that_called_them():
    def scan(*_, **__):
        return np.stack([np.zeros(2), np.zeros(3)])

    fault = fault_of(lambda: checked(scan=scan).scan(SYSTEM, U, liquid=True))
    assert f"(test_contract.py, line {scan.__code__.co_firstlineno + 1})" in str(fault)


def test_an_error_that_was_never_raised_has_no_place():
    assert described(KeyError("x")) == "KeyError: 'x'"


def test_faults_and_interrupts_pass_through():
    for error in (BackendFault("shape", "as it is"), KeyboardInterrupt()):

        def scan(*_, error=error, **__):
            raise error

        with pytest.raises(type(error)) as caught:
            checked(scan=scan).scan(SYSTEM, U, liquid=True)
        assert caught.value is error


def test_empty_arrays_have_nothing_that_is_not_finite():
    check_array("y", np.zeros((0, 3)), (0, 3), np.float64)


def test_arithmetic_of_an_instance_is_kept():
    backend = Made(arithmetic=Arithmetic(scan="any"))
    assert CheckedBackend(backend).arithmetic.scan == "any"
