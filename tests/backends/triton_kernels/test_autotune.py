"""Configurations are verified before they are timed; one that computes something else is refused."""

from __future__ import annotations

import pytest

from liquid_ssm.backends.triton_kernels.configurations import Configuration, forward_configurations
from liquid_ssm.systems import DiagonalSystem

GOOD, OTHER = Configuration(8, 8, 3), Configuration(4, 4, 2)


@pytest.fixture
def autotune(monkeypatch):
    from liquid_ssm.backends.triton_kernels import autotune

    monkeypatch.setattr(autotune, "_chosen", {})
    return autotune


@pytest.fixture
def trial(autotune, device):
    import torch

    def make(kind="liquid", order=1, dtype=torch.float32):
        return autotune.recurrence_trial(DiagonalSystem, (2, 3, 21), 5, dtype, device, kind, order)

    return make


@pytest.mark.parametrize(("kind", "order"), [("linear", 1), ("liquid", 1), ("truncated", 3), ("chain", 3)])
def test_every_configuration_of_the_table_is_within_the_bound(autotune, trial, monkeypatch, kind, order):
    from liquid_ssm.backends.triton_kernels import configurations

    made = trial(kind, order)
    monkeypatch.setattr(configurations, "interpreting", lambda: False)
    for configuration in (*forward_configurations(6, 5, order=order), OTHER):
        assert autotune.verified(made, configuration) == ""


def test_the_bound_is_far_below_the_output(trial):
    made = trial()
    for expected, allowed in zip(made.expected, made.allowed, strict=True):
        assert allowed.max() < 1e-3 * expected.abs().max()


def planted(trial, change):
    """The trial with an output of OTHER changed."""

    def run(configuration, empty):
        outputs = [output.clone() for output in trial.run(configuration, empty)]
        if configuration == OTHER:
            change(outputs)
        return tuple(outputs)

    return type(trial)(run, trial.expected, trial.allowed)


@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize("wrong", ["forgotten", "shifted", "scaled"])
def test_a_wrong_candidate_is_refused_and_never_timed(autotune, trial, output, wrong):
    def change(outputs):
        if wrong == "forgotten":
            outputs[output].view(-1)[-1] = float("nan")
        elif wrong == "shifted":
            outputs[output] = outputs[output].roll(1, -2)
        else:
            outputs[output] *= 1.001

    timed = []

    def seconds(call):
        call()
        timed.append(call)
        return 1.0

    made = planted(trial(), change)
    outcomes = autotune.tuned(("kernel",), [GOOD, OTHER], lambda: made, seconds)
    assert [o.configuration for o in outcomes] == [GOOD, OTHER]
    assert outcomes[1].seconds is None
    assert f"output {output} is" in outcomes[1].refused
    assert len(timed) == 1


def test_what_was_measured_is_kept_for_its_key(autotune, trial):
    made, times = trial(), iter([2.0, 1.0])
    first = autotune.tuned(("a",), [GOOD, OTHER], lambda: made, lambda call: next(times))
    assert first[0].configuration == OTHER
    assert autotune.tuned(("a",), [GOOD, OTHER], lambda: pytest.fail("measured again")) is first


def test_a_device_on_which_nothing_is_right_is_an_error(autotune, trial):
    made = trial()
    broken = type(made)(made.run, tuple(e + 1 for e in made.expected), made.allowed)
    with pytest.raises(RuntimeError, match=r"no configuration of .* computes correctly"):
        autotune.tuned(("b",), [GOOD], lambda: broken, lambda call: 1.0)
