"""Benchmarks of this package against plain implementations; ``python -m benchmarks.bench``."""
