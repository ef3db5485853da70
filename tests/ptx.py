"""Compile a Numba CUDA kernel to machine code without a GPU, and read what ptxas says of it."""

import re
from functools import cache
from typing import Any, NamedTuple

from cuda.core import Linker, LinkerOptions, ObjectCode
from numba import cuda
from numba.core import sigutils


class Compiled(NamedTuple):
    ptx: str
    registers: int
    spilled_bytes: int
    stack_bytes: int


@cache  # many kernels take no complex numbers, and are asked for with both types of them
def compile_without_gpu(kernel: Any, signature: str, cc: tuple[int, int]) -> Compiled:
    """kernel: what @cuda.jit returned; signature as in "void(uint8[::1], int32[::1])"; cc as (9, 0)."""
    arguments, _ = sigutils.normalize_signature(signature)
    ptx, _ = cuda.compile_ptx(kernel.py_func, arguments, cc=cc)
    options = LinkerOptions(arch=f"sm_{cc[0]}{cc[1]}", verbose=True, ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    linker.link("cubin")
    log = linker.get_info_log()
    (registers,) = re.findall(r"ptxas info\s*: Used (\d+) registers", log)
    ((stack, stores, loads),) = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log
    )
    return Compiled(ptx, int(registers), int(stores) + int(loads), int(stack))
