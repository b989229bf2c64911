"""Arithmetic on plain arrays: no DGL, no autograd, no checks. `cpu` is the compiled core."""
