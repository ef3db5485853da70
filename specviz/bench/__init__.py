"""Measurements of speed and memory: ratios, both sides in one run, records in data/results/."""
