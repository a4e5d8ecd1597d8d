"""Gradients against exact derivatives."""

from __future__ import annotations

from .property import Property

GRADIENTS: tuple[Property, ...] = ()
