"""Metrics over all samples, other rates, and data that do not fit the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from liquid_ssm.errors import DataError, ParameterError
from liquid_ssm.tasks import get_task
from liquid_ssm.tasks.batch import Batch, Sample
from liquid_ssm.train.evaluate import _thinned, evaluate, mean_and_deviation, measure, open_data
from liquid_ssm.train.trained import open_checkpoints


@pytest.fixture(scope="module")
def one(run_folder):
    return open_checkpoints(run_folder)[0]


def test_accuracy_is_that_of_all_samples(one, digits):
    found = evaluate(one, digits)
    # 16 + 16 + 8: a mean over batches would be another number.
    assert found.n_samples == 40
    u = torch.stack([digits.test[i].u for i in range(40)])
    labels = torch.tensor([digits.test[i].target for i in range(40)])
    with torch.no_grad():
        outputs = one.model(u)
    # Batches of another size round otherwise: 64 steps of at most 100 roundings in 2 layers, of numbers below 1.
    assert torch.allclose(found.outputs, outputs, rtol=0, atol=2 * 64 * 100 * torch.finfo(torch.float32).eps)
    right = found.outputs.argmax(1) == labels
    assert found.value == int(right.sum()) / 40
    assert torch.equal(found.targets, labels)
    assert found.recurrent is None
    assert sum(map(sum, found.confusion)) == 40
    assert [row.support for row in found.classes] == torch.bincount(labels, minlength=10).tolist()


def test_the_table_of_classes_by_hand():
    task = replace(get_task("digits").task, n_outputs=3, classes=("a", "b", "c"))
    found = torch.eye(3)[[0, 0, 1, 1, 1]]
    value, rows, confusion = measure(task, found, torch.tensor([0, 1, 1, 1, 0]))
    assert value == 3 / 5
    assert confusion == ((1, 1, 0), (1, 2, 0), (0, 0, 0))
    assert [(row.name, row.precision, row.recall, row.support) for row in rows[:2]] == [
        ("a", 1 / 2, 1 / 2, 2), ("b", 2 / 3, 2 / 3, 3),
    ]  # fmt: skip
    # Neither there nor found: no share of nothing.
    assert rows[2].precision != rows[2].precision
    assert rows[2].recall != rows[2].recall
    assert rows[2].support == 0


def test_rmse_is_the_root_of_the_mean_over_all_numbers():
    task = replace(get_task("digits").task, kind="regression", n_outputs=1, classes=())
    value, rows, confusion = measure(task, torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([[1.0], [4.0], [4.0]]))
    # (0 + 4 + 1)/3, with roundings in float64 alone
    assert value == pytest.approx((5 / 3) ** 0.5, rel=1e-15)
    assert (rows, confusion) == ((), ())


def test_half_the_rate_is_every_second_step_with_steps_twice_as_large(one, digits, monkeypatch):
    seen = []
    right = type(one.model).forward

    def forward(self, u, lengths=None, rate=1.0):
        seen.append((u, rate))
        return right(self, u, lengths=lengths, rate=rate)

    monkeypatch.setattr(type(one.model), "forward", forward)
    found = evaluate(one, digits, every=2)
    assert {rate for _, rate in seen} == {2.0}
    whole = torch.stack([digits.test[i].u for i in range(40)])
    assert torch.equal(torch.cat([u for u, _ in seen]), whole[:, ::2])
    assert (found.every, found.n_samples) == (2, 40)


def test_steps_that_are_left_out_shorten_the_rows():
    u = torch.arange(10.0).view(2, 5, 1)
    thin = _thinned(Batch(u, torch.zeros(2), torch.tensor([5, 4])), 2)
    assert thin.u[..., 0].tolist() == [[0, 2, 4], [5, 7, 9]]
    # Of four steps the first and the third.
    assert thin.lengths.tolist() == [3, 2]
    assert thin.rate == 2
    assert _thinned(Batch(u, torch.zeros(2)), 1).u is u
    pairs = Batch(torch.arange(20.0).view(1, 2, 10, 1), torch.zeros(1), torch.tensor([[10, 1]]))
    assert _thinned(pairs, 3).u.shape == (1, 2, 4, 1)
    assert _thinned(pairs, 3).lengths.tolist() == [[4, 1]]


def test_the_recurrent_mode_gives_the_same_numbers(one, digits):
    for every in (1, 2):
        found = evaluate(one, digits, every=every, recurrent=True)
        assert found.recurrent.same
        assert found.recurrent.metric == found.value
        assert found.as_dict()["recurrent"]["same"] is True


def test_every_part_can_be_evaluated_and_others_are_refused(one, digits):
    small = get_task("digits")(None, batch_size=32, limit={"train": 5, "validation": 3})
    small.setup()
    small.test = []
    said = []
    assert evaluate(one, small, part="train", said=lambda *given: said.append(given)).n_samples == 5
    assert said == [(1, 1, "seed-2, train")]
    assert evaluate(one, small, part="validation").n_samples == 3
    with pytest.raises(DataError, match="the test part is empty"):
        evaluate(one, small)
    with pytest.raises(ParameterError, match="unknown part 'valid'"):
        evaluate(one, small, part="valid")
    with pytest.raises(ParameterError, match="every is 0"):
        evaluate(one, small, every=0)


def test_symbols_of_text_are_not_left_out(one, digits, monkeypatch):
    monkeypatch.setattr(type(digits), "task", replace(digits.task, n_inputs=None))
    with pytest.raises(ParameterError, match="is text"):
        evaluate(one, digits, every=2)


def test_data_are_those_that_the_model_was_trained_with(one, monkeypatch):
    data = open_data(one, None, batch_size=8)
    assert (data.task.name, data.eval_batch_size, len(data.test)) == ("digits", 8, 360)
    task = get_task("digits")
    description = task.description
    monkeypatch.setattr(task, "description", lambda self: {**description(self), "vocabulary": list("ab")})
    about = {**one.about, "task": {**one.about["task"], "vocabulary": ["a", "c"]}}
    with pytest.raises(DataError, match=r"vocabulary of the data is \['a', 'b'\], but .* \['a', 'c'\]"):
        open_data(replace(one, about=about), None)
    # A tuple of a file is a list.
    open_data(replace(one, about={**about, "task": {**about["task"], "vocabulary": ("a", "b")}}), None)


def test_deviations_of_the_data_are_those_of_the_training(one, monkeypatch):
    task = get_task("digits")
    monkeypatch.setattr(task, "task", replace(task.task, deviations={"test-as-validation": "…"}))
    for published in (["test-as-validation", "drop-last", "batch-means"], ["all"]):
        data = open_data(replace(one, about={**one.about, "training": {"as_published": published}}), None)
        # Metrics stay exact.
        assert data.as_published == {"test-as-validation"}


def test_the_last_batch_counts_whatever_training_did(one):
    data = get_task("digits")(None, batch_size=16, limit={"test": 20}, as_published=["drop-last"])
    data.setup()
    assert evaluate(one, data).n_samples == 20


def test_lengths_are_looked_at(one, digits, monkeypatch):
    samples = [Sample(digits.test[i].u[: 64 - i], digits.test[i].target) for i in range(5)]
    data = get_task("digits")(None, batch_size=5)
    data.test = samples
    found = evaluate(one, data, recurrent=True)
    for i, sample in enumerate(samples):
        with torch.no_grad():
            alone = one.model(sample.u[None])[0]
        # As above.
        assert torch.allclose(found.outputs[i], alone, rtol=0, atol=2 * 64 * 100 * torch.finfo(torch.float32).eps)
    assert found.recurrent.same


def test_mean_and_deviation_of_a_sample():
    assert mean_and_deviation([1.0, 3.0]) == (2.0, 2**0.5)
    assert mean_and_deviation([1.5]) == (1.5, None)


def test_the_published_form_of_a_rate_has_no_steps(one, digits):
    with pytest.raises(ParameterError, match="no steps; leave --recurrent or --as-published out"):
        evaluate(one, digits, every=2, published_rate=True, recurrent=True)
