"""torch's prototype associative scan as a backend: Eq. 11 in O(log L) steps."""

import torch
from torch._higher_order_ops.associative_scan import associative_scan


def combine(older, newer):
    """First x -> a x + w, then x -> a' x + w': together x -> a' a x + (a' w + w')."""
    return newer[0] * older[0], newer[0] * older[1] + newer[1]


class AssociativeScan:
    scan_order = "any"  # a tree, not the order of time

    def scan(self, a, b, c, u, state):
        a, b, c, u = (torch.from_numpy(array) for array in (a, b, c, u))
        w = b[:, None] * u[..., None]  # (batch, H, L, M)
        start = torch.zeros(len(u), *a.shape, dtype=a.dtype) if state is None else torch.from_numpy(state)
        if len(u) == 0:  # torch's scan returns another shape, or fails
            return u.numpy(), start.numpy()
        # The state is what a step x -> 0 x + start before the first input leaves behind.
        transitions = torch.cat([torch.zeros_like(start)[:, :, None], a[:, None] + w], dim=2)
        drives = torch.cat([start[:, :, None], w], dim=2)
        _, x = associative_scan(combine, (transitions, drives), dim=2, combine_mode="generic")
        y = 2 * (c[:, None] * x[:, :, 1:]).sum(dim=-1).real
        return y.numpy(), x[:, :, -1].numpy()
