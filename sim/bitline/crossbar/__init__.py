"""The numbers: encodings, kernels, engines, certificate. NumPy and Numba only."""
