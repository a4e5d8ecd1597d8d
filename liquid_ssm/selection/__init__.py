"""Choosing a backend by proof and by time: candidates, verification, certificates, and their use at every call."""
