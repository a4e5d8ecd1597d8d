"""A wrong scan, found in a public port: the given state enters through Ā only and misses the liquid term."""

import numpy as np


class ForgetfulScan:
    scan_order = "sequential"

    def scan(self, a, b, c, u, state):
        w = b * np.moveaxis(u, -1, 0)[..., None]  # (L, batch, H, M)
        x = np.zeros(w.shape[1:], w.dtype)
        states = []
        for w_k in w:
            x = (a + w_k) * x + w_k
            states.append(x)
        states = np.array(states).reshape(w.shape)
        if state is not None:
            # Wrong: the response to the state is a^(k+1) x_{-1} only where u is zero.
            powers = np.cumprod(np.broadcast_to(a, states.shape), axis=0)
            states = states + powers * state
        y = np.moveaxis(2 * (c * states).sum(axis=-1).real, 0, -1)
        final = states[-1] if len(states) else (np.zeros_like(x) if state is None else state)
        return y.astype(u.dtype), final
