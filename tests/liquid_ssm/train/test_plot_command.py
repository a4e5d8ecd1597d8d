"""The command `plot`: which pictures of what, and what is left out with a reason."""

from __future__ import annotations

import shutil

import pytest

from liquid_ssm.errors import DataError
from liquid_ssm.tasks import get_task
from liquid_ssm.train import plot_command

ALL = ["curves", "kernels", "spectra", "timescales", "orders"]


@pytest.fixture
def run(run_command):
    return run_command(plot_command.plot)


def test_a_run_is_drawn_with_all_of_its_seeds(run, run_folder, tmp_path):
    code, out, err = run(run_folder, "--to", tmp_path / "new" / "plots")
    assert (code, err) == (0, "")
    made = [tmp_path / "new" / "plots" / f"{name}.svg" for name in ALL]
    assert out.split() == [str(path) for path in made]
    assert all(path.stat().st_size > 1000 for path in made)


def test_pictures_go_beside_the_run_without_another_place(run, run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    code, out, _ = run(tmp_path / "run" / "seed-2", "--format", "png", "-q")
    assert (code, out) == (0, "")
    made = (tmp_path / "run" / "seed-2" / "plots").iterdir()
    assert {path.name for path in made} == {f"{name}.png" for name in ALL}


def test_a_model_alone_has_no_curves(run, run_folder, tmp_path):
    for place in ("model", "checkpoints/last.ckpt"):
        code, out, _ = run(run_folder / "seed-2" / place, "--to", tmp_path)
        assert code == 0
        assert "curves.svg" not in out
        assert "orders.svg" in out


def test_what_cannot_be_drawn_is_said(run, make_seed, run_folder, tmp_path, monkeypatch):
    seed = make_seed(tmp_path, 0, model="lstm", options={})
    code, out, err = run(seed, "--to", tmp_path / "plots")
    assert code == 0
    assert out.split() == [str(tmp_path / "plots" / "curves.svg")]
    assert "LSTM has no state-space layers" in err
    shutil.rmtree(seed / "model")
    code, out, err = run(seed, "--to", tmp_path / "plots")
    assert code == 0
    assert "left out: the model" in err
    (seed / "metrics.csv").unlink()
    code, out, err = run(seed, "--to", tmp_path / "plots")
    assert code == 2
    assert "nothing to draw" in err

    def without(self, *_, **__):
        raise DataError("it needs its data: give their folder with --data.")

    monkeypatch.setattr(get_task("digits"), "__init__", without)
    code, out, err = run(run_folder, "--to", tmp_path / "plots")
    assert code == 0
    assert "timescales" in out
    assert "orders" not in out
    assert "liquid orders, which depends on the inputs (it needs its data" in err
    # Data that were asked for must be there.
    code, _, err = run(run_folder, "--to", tmp_path / "plots", "--data", tmp_path)
    assert code == 2


def test_bad_options_are_refused(run, run_folder, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, said in (
        ((run_folder, "--format", "bmp"), "unknown format"),
        ((tmp_path / "nothing",), "does not exist"),
        ((run_folder, "--to", tmp_path / "file"), "not a folder"),
    ):
        code, _, err = run(*arguments)
        assert code == 2
        assert said in err
