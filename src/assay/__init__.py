"""Assay: reproducible deep-learning experiments, from the data to the paper's tables."""

__version__ = "0.1.0"
