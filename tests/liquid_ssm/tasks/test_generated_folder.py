"""A folder below the one that was generated into is taken for it; any other is left as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from liquid_ssm.data_folder import Generated, write_generated
from liquid_ssm.errors import DataError
from liquid_ssm.tasks.generated_folder import generated_above


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "new" / "bidmc" / "HR" / "reshuffle").mkdir(parents=True)
    write_generated(tmp_path / "new", Generated("bidmc", 0, "1"), [])
    return tmp_path / "new"


@pytest.mark.parametrize("below", [".", "bidmc", "bidmc/HR"])
def test_the_layouts_folders_lead_to_the_top(folder, below):
    assert generated_above(folder / below, "bidmc").samefile(folder)


def test_others_are_left(folder, tmp_path):
    assert generated_above(folder / "bidmc", "speech-commands") == folder / "bidmc"
    assert generated_above(folder / "bidmc" / "HR" / "reshuffle", "bidmc") == folder / "bidmc" / "HR" / "reshuffle"
    assert generated_above(tmp_path, "bidmc") == tmp_path


def test_relative_paths_work(folder, monkeypatch):
    monkeypatch.chdir(folder / "bidmc")
    assert generated_above(Path("HR"), "bidmc").samefile(folder)


def test_a_damaged_mark_is_named(folder):
    (folder / "GENERATED.json").write_text("{")
    with pytest.raises(DataError, match=r"GENERATED\.json is damaged"):
        generated_above(folder / "bidmc", "bidmc")
