"""Every public layer and function under every tool of torch: `make matrix`, or `python -m matrix` from tests/.

subjects.py says what is tried, tools.py with what, refused.py what is refused and why; case.py compares with eager
float64; zygote.py runs each cell in a process of its own; page.py prints the table that specviz/TORCH.md shows.
"""
