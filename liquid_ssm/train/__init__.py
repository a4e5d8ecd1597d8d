"""Training on the paper's tasks: presets, runs, evaluation, plots."""
