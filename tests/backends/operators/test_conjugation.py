"""Marked conjugates and negatives inside operators."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.operators.conjugation import marks_count
from liquid_ssm.backends.operators.scan import scan


@pytest.fixture(scope="module")
def library():
    made = torch.library.Library("liquid_ssm_test", "FRAGMENT")
    made.define("conjugate(Tensor x) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
    made.define("negative(Tensor x) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
    made.impl("conjugate", marks_count(lambda x: x.conj() * 1), "CompositeExplicitAutograd")
    made.impl("negative", marks_count(lambda x: x.conj().imag * 1), "CompositeExplicitAutograd")
    torch.library.register_fake("liquid_ssm_test::conjugate", lambda x: x.new_empty(x.shape), lib=made)
    fake = lambda x: x.new_empty(x.shape, dtype=torch.float32)  # noqa: E731
    torch.library.register_fake("liquid_ssm_test::negative", fake, lib=made)
    return made


def test_marks_made_inside_count_under_the_compiler_too(library):
    operators = torch.ops.liquid_ssm_test
    x = torch.complex(torch.ones(2), torch.ones(2))
    torch._dynamo.reset()
    for operator, expected in ((operators.conjugate, x.conj()), (operators.negative, -x.imag)):
        compiled = torch.compile(lambda x, operator=operator: operator(x) * 1, backend="aot_eager", fullgraph=True)
        assert torch.equal(operator(x), expected)
        assert torch.equal(compiled(x), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_marked_arguments_are_what_they_stand_for(draw, holds, compiled):
    A, *rest = draw().parameters("diagonal")
    v, state = draw().complex(2, 2, 5), draw().complex(2, 2, 3)

    def function(A, v, state):
        return scan(v.conj().imag, A.conj(), *rest, state.conj(), True, True, "")

    torch._dynamo.reset()
    called = torch.compile(function, backend="aot_eager", fullgraph=True) if compiled else function
    plain = [t.conj().resolve_conj() for t in (A, state)]
    expected = scan((-v.imag).contiguous(), plain[0], *rest, plain[1], True, True, "")
    holds.are_equal(called(A, v, state), expected)


def test_nothing_is_left_switched(draw):
    A = draw().complex(2)
    assert torch.equal(marks_count(lambda x: x.conj() * 1)(A), A.conj())
    assert not any(
        torch._C._dispatch_tls_is_dispatch_key_excluded(key)
        for key in (torch._C.DispatchKey.Conjugate, torch._C.DispatchKey.Negative)
    )
    with pytest.raises(ZeroDivisionError):
        marks_count(lambda: 1 / 0)()
