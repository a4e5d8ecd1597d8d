"""What a task is, without its data."""

from __future__ import annotations

from liquid_ssm.tasks.task import CLASSIFICATION, REGRESSION, SHARED_DEVIATIONS, Task


def test_tokens_are_what_has_no_number_of_features() -> None:
    assert Task("x", "X", CLASSIFICATION, 8, None, 2).tokens
    assert not Task("x", "X", CLASSIFICATION, 8, 1, 2).tokens


def test_the_metric_goes_with_the_kind() -> None:
    assert Task("x", "X", CLASSIFICATION, 8, 1, 2).metric == "accuracy"
    assert Task("x", "X", REGRESSION, 8, 1, 1).metric == "rmse"


def test_shared_deviations_say_both_ways() -> None:
    assert set(SHARED_DEVIATIONS) == {"drop-last", "batch-means"}
    assert all("by default" in text for text in SHARED_DEVIATIONS.values())
