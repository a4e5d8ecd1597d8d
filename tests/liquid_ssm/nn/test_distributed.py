"""Two processes of `DistributedDataParallel` give the gradients of one."""

from __future__ import annotations

import subprocess
import sys

import torch

from liquid_ssm.nn import SequenceModel

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


def run(folder, size):
    command = [sys.executable, "-W", "error", "-c", TRAIN]
    ranks = [
        subprocess.Popen([*command, str(rank), str(size), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert not any(rank.returncode for rank in ranks), errors
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
