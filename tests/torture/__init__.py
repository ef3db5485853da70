"""Robustness in numbers: `make torture`. Each part is a module with `run(...) -> dict`, a record's fields."""
