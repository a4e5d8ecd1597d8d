"""Two processes of `DistributedDataParallel` give the gradients of one."""

from __future__ import annotations

import subprocess
import sys

import torch

TRAIN = """
import sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from liquid_ssm.nn import SequenceModel

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet{size}", rank=rank, world_size=size)
torch.manual_seed(0)
model = SequenceModel(2, 3, n_layers=2, n_channels=4, n_state=6, init="legs", backend="first").double()
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


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    one, two = run(tmp_path, 1), run(tmp_path, 2)
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        # The same terms added in another order: below 1000 of them, 4 rows by 15 steps by at most 8 features, twice.
        allowed = 1000 * torch.finfo(torch.float64).eps * float(gradient.detach().abs().max())
        assert torch.allclose(two[name], gradient, rtol=0, atol=allowed), name
        assert gradient.abs().max() > 0
