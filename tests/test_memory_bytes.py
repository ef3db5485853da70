"""Bytes that the context says it keeps, held against what torch's allocator and the process really hold."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from spectral_kernels.bits import CHUNK, pack_bits, unpack_bits
from torch import nn

from specviz.memory import compress_activations, measure_step
from specviz.memory.kept import Gate

WIDTHS = (1, 2, 4, 8)
COUNTS = (0, 1, 7, 8, 9, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 13)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", COUNTS)
def test_bits_come_back_and_take_their_width(width, count):
    codes = torch.randint(2**width, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed = pack_bits(codes, width)
    assert packed.nbytes == packed.untyped_storage().nbytes() == -(-count * width // 8)
    assert torch.equal(unpack_bits(packed, width, count), codes)
    for dtype in (torch.bool, torch.float32, torch.bfloat16):
        assert torch.equal(unpack_bits(packed, width, count, dtype), codes.to(dtype))
    if width == 1:
        assert packed.numpy().tobytes() == np.packbits(codes.numpy(), bitorder="little").tobytes()
        assert torch.equal(pack_bits(codes.bool(), 1), packed)


def numpy_bytes(function):
    """The most that NumPy and Python hold on the way, and the result."""
    import tracemalloc

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = function()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("on", "off"), [(1.0, 0.0), (2.0, 0.0), (0.2, -float("inf"))])
def test_bits_lie_in_torchs_memory_and_so_does_all_on_the_way(on, off, layout):
    mask = (torch.randn(8, 32, 96, 96) > 0).contiguous(memory_format=layout)
    before, gate = numpy_bytes(lambda: Gate.of(mask, torch.float32, on, off))
    assert gate.nbytes == mask.numel() // 8 > 2 * CHUNK // 8
    assert before < CHUNK  # a chunk's bits; NumPy reports its memory to tracemalloc, torch does not
    after, values = numpy_bytes(gate.unpack)
    assert after < 3 * CHUNK  # the bits of one chunk while those of the last still stand
    assert torch.equal(values, torch.where(mask, on, torch.tensor(off)))
    assert values.stride() == mask.stride()


def test_measure_step_sees_the_bits():
    class Gates(nn.Module):
        def forward(self, x):
            y = x * 1
            for _ in range(3):
                y = F.relu(y)
            return F.max_pool2d(y, 2)

    x = torch.randn(8, 16, 64, 64, requires_grad=True)
    contexts = []

    def context():
        contexts.append(compress_activations())
        return contexts[-1]

    memory = measure_step(Gates(), x, context=context)
    bits = x.numel() * 3 // 8 + x.numel() // 4 // 4
    assert memory.saved_bytes == pytest.approx(bits, rel=0.001)  # and numbers of a few bytes


# Allocations of a page and more stand alone and go back at once: what is resident is then what is allocated.
EXACT_HEAP = {"MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}
RESIDENT = """
import gc, json, re, statistics
import torch, torch.nn.functional as F
from torch import nn
from specviz.memory import *

gc.freeze()  # what imports made: collecting garbage is quicker without it
torch.manual_seed(0)
net = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.LeakyReLU()),
    *(nn.MaxPool2d(2), nn.Dropout(0.2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU6(), nn.MaxPool2d(3, 2, 1)),
    *(nn.Conv2d(16, 16, 3, padding=1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
)
x, labels = torch.randn(48, 3, 64, 64).cumsum(-1) / 4, torch.randint(10, (48,))

def resident():
    gc.collect()
    with open("/proc/self/smaps_rollup") as text:
        return 1024 * int(re.search(r"^Rss:\\s+(\\d+)", text.read(), re.M)[1])

def loss_in(context):
    with context() as stats:
        return F.cross_entropy(net(x), labels), stats

CONTEXTS = [compress_activations, quantise_activations, bfloat16_activations]
held, counted = [], []
for context in CONTEXTS:
    for _ in range(2):
        loss_in(context)[0].backward()
    differences = []
    for _ in range(5):
        loss, stats = loss_in(context)
        before = resident()
        del loss
        differences.append(before - resident())
    held.append(statistics.median(differences))
    counted.append(stats.stored_bytes + stats.gate_bytes + stats.pool_bytes)
# Last, because the profiler's events leave holes in the heap, which later tensors fill.
saved = [measure_step(net, x, loss=F.cross_entropy, targets=labels, context=c).saved_bytes for c in CONTEXTS]
print(json.dumps({"held": held, "saved": saved, "counted": counted}))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux: /proc/self/smaps_rollup")
def test_saved_bytes_are_what_the_process_holds_between_forward_and_backward():
    run = subprocess.run(
        [sys.executable, "-c", RESIDENT], env=os.environ | EXACT_HEAP, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    bytes_of = json.loads(run.stdout)
    for held, saved, counted in zip(*bytes_of.values(), strict=True):
        assert held == pytest.approx(saved, rel=0.02)
        # The rest are means of batch norm, the loss's probabilities, a matrix.
        assert 0.95 * saved < counted < saved
