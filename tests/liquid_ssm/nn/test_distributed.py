"""Two processes of `DistributedDataParallel` give the gradients of one."""

from __future__ import annotations

import subprocess
import sys

import torch

from liquid_ssm.nn import MODELS, SequenceModel

TRAIN = """
import sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from liquid_ssm.nn import SequenceModel

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet{size}", rank=rank, world_size=size)
torch.manual_seed(0)
model = SequenceModel(2, 3, n_layers=2, n_channels=4, n_state=6, backend="first").double()
u = torch.randn(4, 15, 2, dtype=torch.float64)
own = u[rank * 4 // size : (rank + 1) * 4 // size]
parallel = DistributedDataParallel(model)  # kept, or nothing is exchanged
parallel(own).square().mean().backward()
if rank == 0:
    torch.save({name: p.grad for name, p in model.named_parameters()}, f"{folder}/gradients{size}.pt")
distributed.destroy_process_group()
"""


def start(program, arguments):
    """A process for each list of arguments; all must end well."""
    command = [sys.executable, "-W", "error", "-c", program]
    ranks = [subprocess.Popen([*command, *given], stderr=subprocess.PIPE, text=True) for given in arguments]
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert not any(rank.returncode for rank in ranks), errors


def run(folder, size):
    start(TRAIN, [[str(rank), str(size), str(folder)] for rank in range(size)])
    return torch.load(folder / f"gradients{size}.pt", weights_only=True)


def test_gradients_of_two_processes_are_those_of_one(tmp_path, rounded, rounded_gradients):
    one, two = run(tmp_path, 1), run(tmp_path, 2)
    torch.manual_seed(0)
    model = SequenceModel(2, 3, n_layers=2, n_channels=4, n_state=6, backend="first").double()
    u = torch.randn(4, 15, 2, dtype=torch.float64)
    network = rounded_gradients.Network()
    y = rounded_gradients.Passes(network, model, rounded).training(u)
    # Twice y by the mean's weight: three roundings backwards.
    loss = network.polynomial(lambda y: y.square().mean(), y.numel() + 1, 3, y)
    names, parameters = zip(*model.named_parameters(), strict=True)
    errors = dict(zip(names, network.errors(*network.gradients(loss, parameters)), strict=True))
    assert one.keys() == two.keys() == errors.keys()
    for name, gradient in one.items():
        assert bool(((two[name] - gradient).abs() <= 2 * errors[name]).all()), name
        assert gradient.abs().max() > 0


HALVES = """
import sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from liquid_ssm.nn import MODELS, SequenceModel

rank, folder, *names = int(sys.argv[1]), *sys.argv[2:]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
for name in names:
    torch.manual_seed(0)
    model = SequenceModel(2, 3, n_channels=4, layer=lambda features: MODELS[name](features, 6, backend="first"))
    halves = torch.randn(2, 2, 70, 2)
    alone = []
    for half in halves:
        model.zero_grad()
        model(half).square().mean().backward()
        alone.append([p.grad.clone() for p in model.parameters()])
    model.zero_grad()
    parallel = DistributedDataParallel(model)
    parallel(halves[rank]).square().mean().backward()
    for (key, p), first, second in zip(model.named_parameters(), *alone, strict=True):
        assert torch.equal(p.grad, (first + second) / 2), (name, key)
        assert not torch.equal(first, second), (name, key)
distributed.destroy_process_group()
"""


def test_gradients_are_the_mean_of_those_of_the_parts_of_a_batch(tmp_path):
    """In every bit: halving is exact, and a sum of two has one order."""
    models = {"liquid_s4": "dplr", "liquid_s4_kb": "dplr", "liquid_s4_pb": "dplr", "s5": "mimo", "s4d_lin": "diagonal"}
    assert {name: MODELS[name](4, 6).structure for name in models} == models
    start(HALVES, [[str(rank), str(tmp_path), *models] for rank in range(2)])
