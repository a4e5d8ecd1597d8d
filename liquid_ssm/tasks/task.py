"""What a task is, without its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CLASSIFICATION, REGRESSION = "classification", "regression"

# Deviations from the published pipeline that every task has: the default is the honest form.
DROP_LAST = "drop-last"
BATCH_MEANS = "batch-means"
SHARED_DEVIATIONS = {
    DROP_LAST: "the last, smaller batch of validation and test is left out; by default no sample is",
    BATCH_MEANS: "metrics are means over batches; by default they are exact, over all samples",
}


@dataclass(frozen=True)
class Task:
    """A task, as the paper has it.

    Attributes:
        name: as in `liquid_ssm.tasks.TASKS`.
        title: as the paper writes it.
        kind: `classification` (accuracy) or `regression` (root of the mean square error).
        length: longest sequence [steps].
        n_inputs: features of a step; None for tokens, whose vocabulary the data decide.
        n_outputs: classes, or numbers to predict.
        pair: two sequences per sample, (batch, 2, length), which one model encodes.
        classes: their names, in the order of the outputs.
        expected: the files below `--data`, for people.
        paper: results of the paper to compare with, by name of the model, in the paper's unit; never a claim of ours.
        part: the part of the data that the paper's figures are of.
        deviations: what the published pipeline does otherwise, by name, with what the default does instead; on top of
            `SHARED_DEVIATIONS`.
    """

    name: str
    title: str
    kind: str
    length: int
    n_inputs: int | None
    n_outputs: int
    pair: bool = False
    classes: tuple[str, ...] = ()
    expected: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)
    part: str = "validation"
    deviations: Mapping[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> bool:
        """Inputs are whole numbers of a vocabulary."""
        return self.n_inputs is None

    @property
    def metric(self) -> str:
        """`accuracy` (larger is better) or `rmse` (smaller is better)."""
        return "accuracy" if self.kind == CLASSIFICATION else "rmse"
