"""Measurements of speed and memory: ratios, both sides in one run, records in data/results/."""

from specviz.extras import needs

with needs("lab"):  # every bench prints a table
    import rich  # noqa: F401
