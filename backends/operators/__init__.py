"""Primitives as torch operators of the namespace `liquid_ssm`; importing this package alone does not import torch."""
