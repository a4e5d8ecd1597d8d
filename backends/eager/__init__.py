"""The primitives in plain torch operations, on any device, complex or with real and imaginary parts apart."""
