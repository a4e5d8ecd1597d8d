"""Backends: one file, one way to compute.  They are found by name through `liquid_ssm.registry`."""
