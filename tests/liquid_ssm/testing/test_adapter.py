from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backend import Backend, Rejection
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.adapter import AdapterBackend, load_backend
from liquid_ssm.testing.contract import BackendFault
from liquid_ssm.testing.strategies import random_system

SYSTEM = random_system("diagonal", n_channels=2, n_modes=3)
U = np.random.default_rng(0).normal(size=(2, 2, 8))
STATE = np.random.default_rng(1).normal(size=(2, 2, 3)) + 0j


class Scan:
    """The numpy backend behind the interface of an adapter."""

    def scan(self, a, b, c, u, state):
        return get_backend("numpy").scan(ls.DiagonalSystem(a, b, c), u, state, liquid=True)


class Everything(Scan):
    name = "everything"
    dtypes = ("float64",)
    scan_order = "sequential"

    def linear_scan(self, a, b, c, u, state):
        return get_backend("numpy").scan(ls.DiagonalSystem(a, b, c), u, state, liquid=False)

    def truncated_scan(self, a, b, c, u, state, order):
        return get_backend("numpy").cascade(ls.DiagonalSystem(a, b, c), u, state, order=order, kind="truncated")


class Spy(Scan):
    """Keeps what it was given."""

    def scan(self, a, b, c, u, state):
        self.given = {"a": a, "b": b, "c": c, "u": u, "state": state}
        return super().scan(a, b, c, u, state)


class Writing(Scan):
    def __init__(self, name):
        self.argument = name

    def scan(self, a, b, c, u, state):
        result = super().scan(a, b, c, u, state)
        {"a": a, "b": b, "c": c, "u": u, "state": state}[self.argument].flat[-1] += 1
        return result


def rejects(adapter, mode, structure="diagonal", dtype="float64"):
    found = AdapterBackend(adapter).reject(Problem(ModeSpec(mode), structure, 1, 1, 1, 1, dtype))
    assert found is None or isinstance(found, Rejection)
    return found and str(found)


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
@pytest.mark.parametrize("state", [None, STATE])
def test_it_computes_what_the_adapter_does(mode, state):
    backend = AdapterBackend(Everything())
    y, final = ls.apply(SYSTEM, U, mode=mode, backend=backend, state=state, return_state=True)
    z, other = ls.apply(SYSTEM, U, mode=mode, backend="numpy", state=state, return_state=True)
    assert np.array_equal(y, z)
    assert np.array_equal(final, other)


def test_the_full_system_gets_c_halved():
    full = ls.DiagonalSystem(SYSTEM.A_bar, SYSTEM.B_bar, SYSTEM.C, conjugate_pairs=False)
    y = ls.apply(full, U, mode="liquid", backend=AdapterBackend(Scan()))
    assert np.array_equal(y, ls.apply(SYSTEM, U, mode="liquid", backend="numpy") / 2)


def test_without_declarations():
    backend = AdapterBackend(Scan())
    assert backend.name == "Scan"
    assert backend.capabilities.dtypes == ("float32", "float64")
    assert backend.capabilities.primitives == {"scan": ("diagonal",)}
    assert backend.arithmetic.scan == "any"
    assert rejects(Scan(), "liquid") is None
    assert "a method linear_scan" in rejects(Scan(), "s4")
    assert "cascade" in rejects(Scan(), "truncated")


def test_with_every_declaration():
    backend = AdapterBackend(Everything())
    assert (backend.name, backend.arithmetic.scan) == ("everything", "sequential")
    for mode in ("s4", "liquid", "truncated"):
        assert rejects(Everything(), mode) is None
        assert "needs float64, got float32" in rejects(Everything(), mode, dtype="float32")
        assert "structure" in rejects(Everything(), mode, structure="dense")
    for mode in ("kb", "pb"):
        assert "needs mode s4, liquid or truncated" in rejects(Everything(), mode)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("dtypes", (), "dtypes of the adapter is ()"),
        ("dtypes", "float32", "dtypes of the adapter is 'float32'; allowed: a tuple of some of 'float32', 'float64'."),
        ("dtypes", ("float16",), "dtypes of the adapter is ('float16',)"),
        ("dtypes", np.float32, "dtypes of the adapter is <class 'numpy.float32'>"),
        ("dtypes", None, "dtypes of the adapter is None"),
        ("scan_chunk", 0, "scan_chunk of the adapter is 0"),
        ("scan_order", "tree", "scan_order of the adapter is 'tree'; allowed: 'sequential', 'any'."),
        ("scan_order", None, "scan_order of the adapter is None"),
    ],
)
def test_declarations_that_mean_nothing(name, value, said):
    with pytest.raises(ls.ParameterError) as caught:
        AdapterBackend(type("Adapter", (Scan,), {name: value})())
    assert said in str(caught.value)


def test_dtypes_may_be_a_list_of_numpys():
    adapter = type("Adapter", (Scan,), {"dtypes": [np.dtype("float32")]})()
    assert AdapterBackend(adapter).capabilities.dtypes == ("float32",)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arguments_are_writable_copies_of_one_precision(dtype):
    spy, u = Spy(), U.astype(dtype)
    ls.apply(SYSTEM, u, mode="liquid", backend=AdapterBackend(spy))
    assert spy.given["state"] is None
    ls.apply(SYSTEM, u, mode="liquid", backend=AdapterBackend(spy), state=STATE)
    for name, array in spy.given.items():
        assert array.flags.writeable, name
        assert array.dtype == (dtype if name == "u" else np.result_type(dtype, np.complex64)), name
        assert not any(np.shares_memory(array, other) for other in (u, STATE, *SYSTEM.parameters.values())), name


@pytest.mark.parametrize("name", ["a", "b", "c", "u", "state"])
def test_what_was_written_to_is_named(name):
    before = U.copy()
    with pytest.raises(BackendFault, match=f"scan wrote into its argument {name}$") as caught:
        ls.apply(SYSTEM, U, mode="liquid", backend=AdapterBackend(Writing(name)), state=STATE)
    assert caught.value.kind == "mutated"
    assert np.array_equal(U, before)


def test_an_adapter_is_loaded_by_name(write):
    backend = load_backend(f"{write()}:Good")
    assert isinstance(backend, AdapterBackend)
    assert backend.name == "Good"
    assert np.allclose(ls.apply(SYSTEM, U, mode="liquid", backend=backend), ls.apply(SYSTEM, U, mode="liquid"))


def test_names_may_be_nested_and_functions_may_make_adapters(write):
    module = write("class Outer:\n    Inner = Good\n\ndef make():\n    return Good()\n")
    assert load_backend(f"{module}:Outer.Inner").name == "Good"
    assert load_backend(f"{module}:make").name == "Good"


def test_a_class_of_backend_is_taken_as_it_is():
    backend = load_backend("liquid_ssm.backends.numpy_backend:NumPyBackend")
    assert type(backend) is type(get_backend("numpy"))


@pytest.mark.parametrize("target", ["module", "module:", ":Class", "", ":"])
def test_targets_of_another_form(target):
    with pytest.raises(ls.ParameterError, match="names no class; write module:Class, for instance") as caught:
        load_backend(target)
    assert repr(target) in str(caught.value)


def test_modules_that_are_not_there(write):
    with pytest.raises(ls.ParameterError, match=r"No module named 'no_such_module'\. Run from the folder that"):
        load_backend("no_such_module:Class")
    with pytest.raises(ls.ParameterError, match=r"No module named 'no_such_package'\. Run from the folder"):
        load_backend("no_such_package.module:Class")
    module = write("import no_such_dependency\n")
    with pytest.raises(ls.ParameterError, match=f"named 'no_such_dependency'. '{module}' needs it; install it."):
        load_backend(f"{module}:Good")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0\n", r"cannot import '\w+': ZeroDivisionError: division by zero \(adapter_\d+.py, line \d+\)\."),
        ("def f(:\n", r"cannot import '\w+': SyntaxError: .*adapter_\d+.py, line \d+\)\.$"),
        ("from numpy import no_such_thing\n", r"cannot import '\w+': ImportError: cannot import name 'no_such_thing'"),
        ("raise SystemExit(3)\n", r"cannot import '\w+': SystemExit: 3"),
    ],
)
def test_modules_that_cannot_be_imported(write, source, said):
    with pytest.raises(ls.ParameterError, match=said):
        load_backend(f"{write(source)}:Good")


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        ("", "Missing", "has no 'Missing'"),
        ("", "Good.Missing", "has no 'Good.Missing'"),
        ("number = 3\n", "number", "is a int, not a class. An adapter is a class without constructor arguments"),
        ("class A:\n    pass\n", "A", "has no method scan. An adapter is"),
        ("class A:\n    scan = 3\n", "A", "has no method scan"),
        (
            "class A(Good):\n    def __init__(self, n):\n        pass\n",
            "A",
            "without arguments: TypeError: A.__init__()",
        ),
        ("class A(Good):\n    def __init__(self):\n        raise OSError('no GPU')\n", "A", "OSError: no GPU (adapter"),
        ("class A(Good):\n    def __init__(self):\n        exit(2)\n", "A", "without arguments: SystemExit: 2"),
        ("class A(Good):\n    scan_order = 'tree'\n", "A", "scan_order of the adapter is 'tree'"),
    ],
)
def test_names_that_are_no_backend(write, source, name, said):
    with pytest.raises(ls.ParameterError) as caught:
        load_backend(f"{write(source)}:{name}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_backend_that_declares_nothing(write):
    assert Backend()  # has no abstract method, so Python makes one
    with pytest.raises(ls.ParameterError, match="does not declare name and capabilities; every Backend does"):
        load_backend("liquid_ssm.backend:Backend")
    module = write("from liquid_ssm.backend import Backend\nclass A(Backend):\n    name = 'a'\n")
    with pytest.raises(ls.ParameterError, match="does not declare capabilities"):
        load_backend(f"{module}:A")
