"""Functions computed once more on the way back: the same gradients, of every order, in less memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from liquid_ssm.nn import SSMLayer
from liquid_ssm.nn.recompute import recomputed, with_parameters


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.5, -1.5], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([2.0, 0.25], dtype=torch.float64))
        self.register_parameter("none", None)


def run(module, x, y):
    z = torch.complex(x * module.a, y)
    return (z * z).abs() * module.b, z, y[:1]


def values():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)]


def twice(x, y, module):
    """Two pieces, the second of which goes on from the first."""
    first, z, tail = recomputed(run, module, x, y)
    second, _, _ = recomputed(run, module, z.real, z.imag + tail)
    return first, second


def test_gradients_of_every_order_are_those_of_the_function():
    module, (x, y) = Pair(), values()
    parameters = (module.a, module.b)
    assert torch.autograd.gradcheck(lambda x, y, *_: twice(x, y, module), (x, y, *parameters))
    assert torch.autograd.gradgradcheck(lambda x, y, *_: twice(x, y, module), (x, y, *parameters))
    # A state comes from the parameters, too: what it passes on must not be counted twice.
    total = sum(part.sum() for part in twice(x, y, module))
    once, again = (
        torch.autograd.grad(total, (x, *parameters), retain_graph=True, create_graph=g) for g in (False, True)
    )
    assert all(map(torch.equal, once, again))
    plain = run(module, x, y)
    for one, other in zip(recomputed(run, module, x, y), plain, strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad


def test_what_is_not_reached_has_no_gradient():
    module, (x, y) = Pair(), values()
    _, _, tail = recomputed(run, module, x, y)
    found = torch.autograd.grad(tail.sum(), (x, y, module.a), allow_unused=True)
    assert found[0] is None
    assert found[2] is None
    assert torch.equal(found[1], torch.tensor([1.0, 0.0], dtype=torch.float64))
    module.b.requires_grad_(False)
    result = recomputed(run, module, x.detach(), y)[0]
    gradient = torch.autograd.grad(result.sum(), y)[0]
    assert torch.equal(gradient, torch.autograd.grad(run(module, x, y)[0].sum(), y)[0])
    constant = recomputed(lambda module, x: (x.new_ones(2), x * x), module, x)
    assert torch.autograd.grad(constant[0].sum(), x, allow_unused=True) == (None,)


def test_nothing_is_kept_of_what_is_between():
    module, (x, y), kept = Pair(), values(), []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        recomputed(run, module, x, y)
    assert {id(tensor) for tensor in kept} == {id(tensor) for tensor in (x, y, module.a, module.b)}
    calls = []

    def counted(module, x):
        calls.append(torch.is_grad_enabled())
        return (x * module.a,)

    (result,) = recomputed(counted, module, x)
    result.sum().backward()
    assert calls == [False, True]
    with torch.no_grad():
        recomputed(counted, module, x)
    assert len(calls) == 3


def test_parameters_changed_in_between_are_an_error():
    module, (x, y) = Pair(), values()
    result = recomputed(run, module, x, y)[0]
    with torch.no_grad():
        module.a.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_function_transforms_and_compilers_take_it():
    module, (x, y) = Pair(), values()
    expected = torch.autograd.grad(twice(x, y, module)[1].sum(), x)[0]
    found = torch.func.grad(lambda x: twice(x, y.detach(), module)[1].sum())(x.detach())
    assert torch.equal(found, expected)
    compiled = torch.compile(lambda x, y: twice(x, y, module)[1], fullgraph=True, backend="eager")
    assert torch.equal(torch.autograd.grad(compiled(x, y).sum(), x)[0], expected)


def test_a_module_keeps_its_own_parameters():
    module = Pair()
    twin = with_parameters(module, ["a"], [torch.zeros(2)])
    assert not twin.a.any()
    assert twin.b is module.b
    assert module.a.any()
    assert twin.none is None


PEAK = """
import resource, sys, torch
from liquid_ssm import nn

layer = nn.SSMLayer(64, 64, backend="torch", **{options})
peaks = []
for length in (512, 512, 2048):
    layer(torch.zeros(4, length, 64), dt=torch.ones(4, length)).sum().backward()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[2] - peaks[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
@pytest.mark.parametrize(
    "options",
    [
        {"init": "legs"},
        {"mode": "truncated", "order": 2},
        {"mode": "kb", "correlations": "adjacent", "order": 2},
        {"mode": "pb", "order": 2},
        {"mode": "pb", "correlations": "adjacent", "order": 2, "init": "legs"},
        {"discretization": "adams-bashforth"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_the_memory_of_a_process_does_not_grow_with_the_steps(options):
    program = PEAK.replace("{options}", repr(options))
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # 1536 steps more: states of 4 × 64 × 32 complex64 numbers after every 32 steps are 3 MB, with sums and inputs of
    # order 2 at most four times that, and u, y, dt and their gradients 10 MB.  The states of all steps would be 100 MB;
    # records between freed blocks made it a gigabyte.
    assert int(found.stdout) < 50_000


def test_a_state_keeps_no_steps_before_it():
    for correlations in ("all", "adjacent"):
        layer = SSMLayer(4, 8, mode="pb", correlations=correlations, backend="torch")
        _, state = layer.prefill(torch.zeros(2, 40, 4), dt=torch.ones(2, 40))
        for part in state:
            assert part is None or part.untyped_storage().nbytes() == part.numel() * part.element_size()
