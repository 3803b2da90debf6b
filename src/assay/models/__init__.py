"""Backbones: one file with a `build` function each, found by name."""
