"""Tasks by name."""

from __future__ import annotations

import pytest

from liquid_ssm import tasks
from liquid_ssm.errors import BackendUnavailable, ParameterError
from liquid_ssm.tasks import TASKS, get_task
from liquid_ssm.tasks.data import TaskData


@pytest.mark.parametrize("name", TASKS)
def test_every_name_is_the_name_of_its_class(name: str) -> None:
    found = get_task(name)
    assert issubclass(found, TaskData)
    assert found.task.name == name


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ParameterError, match=r"unknown task 'listop'; allowed: listops, .*Did you mean 'listops'"):
        get_task("listop")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str, package: str) -> None:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")

    monkeypatch.setattr(tasks, "import_module", fails)
    with pytest.raises(
        BackendUnavailable, match=r"lightning is not installed\. Run: pip install 'liquid-ssm\[train\]'"
    ):
        get_task("digits")


def test_a_missing_module_of_ours_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "digits", "no_such_module:Digits")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        get_task("digits")
