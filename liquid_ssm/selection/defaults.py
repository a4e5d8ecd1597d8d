"""What a selection is given where nothing else is said; nothing is imported for it."""

BUDGET = 5.0  # seconds
DT_MIN, DT_MAX = 1e-3, 1e-1  # step sizes of standard systems [time]
