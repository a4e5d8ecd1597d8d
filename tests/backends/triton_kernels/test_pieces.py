"""Scans in pieces against scans in one."""

from __future__ import annotations

import pytest

from liquid_ssm.backends.triton_kernels.configurations import Configuration


@pytest.mark.parametrize("liquid", [True, False])
@pytest.mark.parametrize(("length", "pieces"), [(16, 2), (30, 7), (9, 9), (23, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pieces_give_the_same(case, expected, poisoned, close, liquid, length, pieces, dtype):
    from liquid_ssm.backends.triton_kernels.pieces import scan_in_pieces

    arrays, t = case(length=length, dtype=dtype)
    y, final = scan_in_pieces(t.system, t.u, t.states, liquid=liquid, pieces=pieces, empty=poisoned)
    expected_y, expected_final = expected(arrays, "liquid" if liquid else "linear")
    close(y.cpu(), expected_y, dtype)
    close(final.cpu(), expected_final, dtype)


def test_modes_and_rows_in_several_programs(case, expected, poisoned, close):
    from liquid_ssm.backends.triton_kernels.pieces import scan_in_pieces

    arrays, t = case(length=20, n_modes=11)
    configuration = Configuration(4, 4, 1)
    y, final = scan_in_pieces(
        t.system, t.u, t.states, liquid=True, pieces=3, configuration=configuration, empty=poisoned
    )
    expected_y, expected_final = expected(arrays, "liquid")
    close(y.cpu(), expected_y)
    close(final.cpu(), expected_final)


def test_pieces_begin_at_rest_without_a_state(case):
    from liquid_ssm.backends.triton_kernels.pieces import scan_in_pieces

    _, t = case(length=12)
    y, _ = scan_in_pieces(t.system, t.u, None, liquid=True, pieces=3)
    assert y.equal(scan_in_pieces(t.system, t.u, t.states * 0, liquid=True, pieces=3)[0])
