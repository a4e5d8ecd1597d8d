"""Run by test_run.py in a process of its own: a training that is killed, as by a power cut, before a given step."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from liquid_ssm.train.configuration import restored
from liquid_ssm.train.learner import Learner
from liquid_ssm.train.run import start, train

folder, before = Path(sys.argv[1]), int(sys.argv[2])
step = Learner.training_step


def dying(self: Learner, batch: Any, index: int) -> Any:
    if self.global_step == before:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, index)


Learner.training_step = dying  # type: ignore[method-assign]
configuration = restored(json.loads(sys.argv[3]))
start(folder, configuration)
train(configuration, folder)
