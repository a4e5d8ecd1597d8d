"""Pictures of runs: the numbers that are drawn, and that every picture is drawn."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch

from liquid_ssm.errors import CheckpointError
from liquid_ssm.nn import SSMLayer
from liquid_ssm.nn.diagnosis import Diagnosis, diagnose
from liquid_ssm.nn.stability import transition
from liquid_ssm.tasks import get_task
from liquid_ssm.train import plots
from liquid_ssm.train.evaluate import Evaluation

KINDS = {"diagonal": "s4d-lin", "dplr": "legs", "mimo": "s5"}


def make(structure: str, **options):
    return SSMLayer(3, 6, init=KINDS[structure], mode="liquid", backend="first", seed=1, **options)


def test_curves_leave_out_empty_cells(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train_loss,validation_accuracy\n0,3,2.5,\n0,3,,0.25\n1,6,1.5,\n,,7,\n1,6,,nan-ish\n")
    assert plots.read_curves(path) == {"train_loss": ([0.0, 1.0], [2.5, 1.5]), "validation_accuracy": ([0.0], [0.25])}
    # The mean of an epoch, after which a person would say it was.
    assert plots._by_epoch([0, 0, 1], [1, 3, 5]) == ([1, 2], [2, 5])


def test_files_that_are_no_curves_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        plots.read_curves(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CheckpointError, match="no column 'epoch'"):
        plots.read_curves(tmp_path / "metrics.csv")


@pytest.mark.parametrize("structure", KINDS)
def test_kernels_are_powers_of_the_transition(structure):
    layer = make(structure)
    found = plots.kernels(layer, 9, channels=2)
    with torch.no_grad():
        system = make(structure).double().system()
        if structure == "dplr":
            # A real matrix on (Re x, Im x), of which the output is 2 Re(C x).
            x, C = torch.cat([system.B_bar.real, system.B_bar.imag], -1), system.C
            values = []
            for _ in range(9):
                values.append((2 * torch.cat([C.real, -C.imag], -1) * x).sum(-1))
                x = (transition(system) @ x[..., None])[..., 0]
            expected = torch.stack(values, -1)
        else:
            powers = system.A_bar[..., None] ** torch.arange(9)
            form = "hm,ml,mh->hl" if structure == "mimo" else "hm,hml,hm->hl"
            expected = 2 * torch.einsum(form, system.C, powers, system.B_bar).real
    strongest = expected.square().sum(-1).argsort(descending=True)[:2]
    # 9 steps of fewer than 100 roundings, of numbers below 10.
    assert np.allclose(found, expected[strongest], rtol=0, atol=9 * 100 * 10 * 2.0**-52)


@pytest.mark.parametrize("structure", KINDS)
def test_spectra_are_those_of_the_parameters(structure):
    layer = make(structure)
    found, dt = plots.spectrum(layer)
    held = layer.continuous.continuous()
    assert np.array_equal(found, held.Lambda.ravel())
    steps = held.dt if structure == "mimo" else held.dt[:, None]
    assert np.array_equal(dt, np.broadcast_to(steps, held.Lambda.shape).ravel())


@pytest.mark.parametrize("structure", KINDS)
def test_timescales_are_those_of_the_diagnosis(structure):
    layer = make(structure)
    found = np.sort(plots.timescales(layer))
    (told,) = diagnose(layer, torch.zeros(1, 5, 3)).layers
    assert found.max() == pytest.approx(told.memory_longest, rel=1e-12)
    # torch's median is the lower of two.
    assert found[(len(found) - 1) // 2] == pytest.approx(told.memory_median, rel=1e-12)


def test_some_channels_of_many_stand_for_all():
    layer = SSMLayer(40, 4, init="legs", mode="s4", backend="first", seed=1)
    # Every third channel of 40, with both halves of 2 modes.
    assert plots.timescales(layer).shape == (14 * 4,)


def test_every_picture_is_drawn(tmp_path):
    layers = {f"layer {i + 1}": make(structure) for i, structure in enumerate(KINDS)}
    curve = ([0.0, 1.0], [2.0, 0.01])
    names = ("train_loss", "validation_loss", "validation_accuracy", "validation_rmse", "lr")
    diagnosis = diagnose(layers["layer 1"], torch.randn(2, 9, 3), orders=3)
    lost = replace(diagnosis.layers[0], orders=(float("nan"),))
    drawn = {
        "curves": lambda path: plots.draw_curves({"a": dict.fromkeys(names, curve), "b": {}}, path),
        "nothing": lambda path: plots.draw_curves({"a": {}}, path),
        "kernels": lambda path: plots.draw_kernels(layers, 20, path),
        "spectra": lambda path: plots.draw_spectra(layers, path),
        "timescales": lambda path: plots.draw_timescales(layers, 20, path),
        "orders": lambda path: plots.draw_orders(diagnosis, path),
        "overflow": lambda path: plots.draw_orders(Diagnosis((lost,)), path),
    }
    for name, draw in drawn.items():
        path = tmp_path / f"{name}.svg"
        draw(path)
        assert path.stat().st_size > 1000
    text = (tmp_path / "spectra.svg").read_text()
    assert text.startswith("<?xml")
    # No date: the same numbers give the same picture.
    drawn["spectra"](tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == text


def test_modes_that_do_not_decay_are_said(tmp_path):
    layer = make("diagonal")
    with torch.no_grad():
        layer.continuous.log_decay[0, 0] = -80.0
    # exp(−80) δt is less than the roundoff of 1.
    assert inf in plots.timescales(layer)
    plots.draw_timescales({"layer 1": layer}, 10, tmp_path / "found.svg")


def test_regressions_are_drawn_as_points(tmp_path):
    task = get_task("digits").task.name
    one = Evaluation(
        "seed-0", "", task, "test", 1, "rmse", 0.5, 3, torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 2, 4])
    )
    plots.draw_evaluations([one, one], tmp_path / "found.svg")
    assert (tmp_path / "found.svg").stat().st_size > 1000
