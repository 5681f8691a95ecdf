"""Benchmarks, each with its floor beside it in the same run: `make bench`."""
