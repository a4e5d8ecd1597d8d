"""The data of the paper's experiments: one file per task, one interface."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import BackendUnavailable, unknown_name

if TYPE_CHECKING:
    from .data import TaskData

# Tasks by name: where their class is.
TASKS = {
    "listops": "listops:ListOps",
    "imdb": "imdb:IMDB",
    "aan": "aan:AAN",
    "cifar": "cifar:GrayCIFAR",
    "pathfinder": "pathfinder:Pathfinder",
    "pathx": "pathfinder:PathX",
    "bidmc-hr": "bidmc:HeartRate",
    "bidmc-rr": "bidmc:RespiratoryRate",
    "bidmc-spo2": "bidmc:OxygenSaturation",
    "scifar": "cifar:SequentialCIFAR",
    "sc35": "speech_commands:SC35",
    "sc10": "speech_commands:SC10",
    "digits": "digits:Digits",
}


def get_task(name: str) -> type[TaskData]:
    """The class of a task's data.

    Raises:
        ParameterError: an unknown name.
        BackendUnavailable: without the packages of the extra `train`.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    module, member = TASKS[name].split(":")
    try:
        found: type[TaskData] = getattr(import_module(f".{module}", __name__), member)
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.startswith("liquid_ssm"):
            raise
        raise BackendUnavailable(f"{missing.name} is not installed. Run: pip install 'liquid-ssm[train]'") from missing
    return found
