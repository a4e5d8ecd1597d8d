"""torch's prototype associative scan as a backend: Eq. 11 in O(log L) steps."""

import torch
from torch._higher_order_ops.associative_scan import associative_scan


def combine(older, newer):
    """First (a, w), then (a', w'): x -> a' (a x + w) + w'."""
    return newer[0] * older[0], newer[0] * older[1] + newer[1]


class AssociativeScan:
    scan_order = "any"  # a tree, not the order of time

    def scan(self, a, b, c, u, state):
        a, b, c, u = (torch.from_numpy(v) for v in (a, b, c, u))
        w = b[:, None] * u[..., None]  # (batch, H, L, M)
        x0 = torch.zeros_like(w[:, :, 0]) if state is None and w.shape[2] else None
        if state is not None:
            x0 = torch.from_numpy(state)
        if w.numel() == 0:
            final = x0 if x0 is not None else torch.zeros((*w.shape[:2], w.shape[3]), dtype=w.dtype)
            return u.numpy().copy(), final.numpy().copy()
        transition = a[:, None] + w
        w = torch.cat([w[:, :, :1] + transition[:, :, :1] * x0[:, :, None], w[:, :, 1:]], dim=2)
        _, x = associative_scan(combine, (transition, w), dim=2, combine_mode="generic")
        y = 2 * (c[:, None] * x).sum(-1).real
        return y.numpy(), x[:, :, -1].numpy()
