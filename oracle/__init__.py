"""The exact reference; it knows nothing of what it judges and imports nothing else of the package.

| tier | module | what it gives |
|---|---|---|
| T0 | `exact`, `words` | rationals, from the definitions and from the word expansion of Eq. 12 |
| T1 | `enclosure` | intervals that contain the true value |
| T2 | `multiprecision` | mpmath, independent code, two precisions that must agree |
| T3 | `reference` | extended precision with a running bound, and the bounds of other ways to compute |

Beside them: `discretisation` and `integrator_reference`, `adjoint` for gradients, `metrics`, and `published`, which
reproduces the arithmetic of the authors' code.
"""
