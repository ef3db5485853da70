"""A forked child computes what its parent does, whatever the parent did before and its other threads do meanwhile."""

import ast
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import spectral_kernels
import torch
import torch.nn.functional as F
from numba.core.compiler_lock import global_compiler_lock
from spectral_kernels import calibration, dispatch, rice
from spectral_kernels.cores import torch_threads
from spectral_kernels.dispatch import _devices
from torch import nn
from torch.utils.data import DataLoader, Dataset

import specviz as sv
import specviz.functional as SF

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
PACKAGES = [Path(sv.__file__).parent, Path(spectral_kernels.__file__).parent]
NO_KERNEL = {"FORMS", "Form", "choose_form", "constant", "cuda_is_available", "real", "whole", "wholes"}
NO_KERNEL |= {"Along", "Call", "Operator", "check_beta", "has_symbol", "in_onnx_export", "one_of", "operator"}
NO_KERNEL |= {"constant_result", "untraced"}
ENDS_WITHIN = 300  # seconds; a child that takes longer hangs. On a busy machine one compiles for half a minute


def in_child(claim) -> None:
    """Run the claim in a forked child. AssertionError with its traceback if it fails, hangs or takes the child down."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def run():
        try:
            claim()
            sender.send("")
        except BaseException:
            sender.send(traceback.format_exc())

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(ENDS_WITHIN) else "the child hangs"
    except EOFError:
        child.join()
        found = f"the child ended with exit code {child.exitcode} and without a word"
    child.kill()
    child.join()
    assert not found, found


def random_complex(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.complex(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))


def operations() -> dict:
    """Every operation of `dispatch` that runs a kernel, by name, on several chunks of a thread."""
    N, W, small = 64, 32, 16
    maps, cropped = random_complex(N, W, W // 2 + 1), random_complex(N, small, small // 2 + 1)
    x_hat, w_hat, grad_hat = random_complex(64, 32, 16), random_complex(64, 16, 16), random_complex(64, 32, 16)
    sparse = torch.where(x_hat.abs() > 2, x_hat, 0)
    native, native_w = random_complex(4, 16, 99), random_complex(16, 16, 99)
    images, grad = random_complex(2, 4, W, W // 2 + 1), random_complex(2, 16, W, W // 2 + 1)
    weight = torch.randn(16, 4, 2, 6, generator=torch.Generator().manual_seed(1)) / 4
    pixels = random_complex(2, 4, W, W).real.contiguous()
    bitmap, values = dispatch.threshold_pack(maps, 1.0, form="reference")
    re, im = dispatch.crop(maps, W, (5, 5), form="reference")
    numbers = pixels.reshape(8, -1)
    whole = dispatch.uniform_quantise(numbers, 0.3, form="reference")
    by_entry, by_map = dispatch.rice_fit(whole, form="reference"), torch.zeros(1, dtype=torch.int8)
    slab = rice.slab_of(whole.shape[1])
    rice_words = dispatch.rice_encode(whole, by_entry, by_map, slab, form="reference")
    fixed = dispatch.fixed_width_encode(whole.flatten(), form="reference")
    return {
        "activate": lambda: dispatch.activate(maps, 1.0),
        "activate_backward": lambda: dispatch.activate_backward(maps, bitmap, values),
        "crop": lambda: dispatch.crop(maps, W, (5, 5)),
        "filter_maps": lambda: dispatch.filter_maps(pixels, weight),
        "filters": lambda: dispatch.filters(images, weight, W),
        "filters_bank": lambda: dispatch.filters_bank(weight, (W, W)),
        "filters_gradient": lambda: dispatch.filters_gradient(images, grad, weight, W, False, "cpu"),
        "fixed_width_encode": lambda: dispatch.fixed_width_encode(whole.flatten()),
        "fixed_width_expand": lambda: dispatch.fixed_width_expand(*fixed, (0, whole.numel()), 0.3),
        "moments": lambda: dispatch.moments(pixels.flatten(1)),
        "pad": lambda: dispatch.pad(re, im, (W, W), (5, 5)),
        "pool": lambda: dispatch.pool(maps, W, (small, small)),
        "product": lambda: dispatch.product(x_hat, w_hat, form="cpu"),
        "product_native": lambda: dispatch.product_native(native, native_w, form="cpu"),
        "rice_encode": lambda: dispatch.rice_encode(numbers, by_entry, by_map, slab, 0.3),
        "rice_expand": lambda: dispatch.rice_expand(*rice_words, by_entry, by_map, slab, (0, len(whole))),
        "rice_fit": lambda: dispatch.rice_fit(whole),
        "sparse_product": lambda: dispatch.sparse_product(sparse, torch.stack([w_hat.real, w_hat.imag])),
        "sparse_product_gradient": lambda: dispatch.sparse_product_gradient(sparse, grad_hat),
        "threshold_expand": lambda: dispatch.threshold_expand(bitmap, values, maps.shape),
        "threshold_gather": lambda: dispatch.threshold_gather(maps, bitmap),
        "threshold_pack": lambda: dispatch.threshold_pack(maps, 1.0),
        "uniform_expand": lambda: dispatch.uniform_expand(whole, 0.3),
        "uniform_quantise": lambda: dispatch.uniform_quantise(numbers, 0.3),
        "unpool": lambda: dispatch.unpool(cropped, small, (W, W)),
    }


def tensors(result) -> tuple:
    return result if isinstance(result, tuple) else (result,)


def hold(context, held: threading.Event, release: threading.Event) -> None:
    with context:
        held.set()
        release.wait()


def test_every_kernel_gives_a_child_the_parents_values_though_a_thread_was_inside_one(monkeypatch):
    run = operations()
    assert set(run) == set(dispatch.__all__) - NO_KERNEL
    expected = {}
    for small in (calibration.SMALL, 0):  # 0: all cores, whatever the size
        monkeypatch.setattr(calibration, "SMALL", small)
        expected |= {(small, name): tensors(call()) for name, call in run.items()}

    def claim():  # in one child, which compiles the forms of one core
        for (small, name), known_tensors in expected.items():
            calibration.SMALL = small
            for found, known in zip(tensors(run[name]()), known_tensors, strict=True):
                assert found.dtype == known.dtype, name
                if not (found.is_floating_point() or found.is_complex()):
                    assert torch.equal(found, known), name
                    continue
                # Sums may be vectorised, and so rounded, in another way.
                error, size = (found - known).abs().max(), known.abs().square().mean().sqrt()
                assert error <= 1e-5 * size, f"{name}: {error} of {size}"

    held, release = threading.Event(), threading.Event()
    inside = threading.Thread(target=hold, args=(_devices.threads_for(1), held, release))
    inside.start()
    held.wait()
    try:
        in_child(claim)
    finally:
        release.set()
        inside.join()


def test_torch_computes_in_a_child_of_a_parent_that_has_computed_on_several_cores():
    a, x, w = torch.ones(500, 500), torch.rand(4, 8, 32, 32), torch.rand(8, 8, 3, 3)
    run = {
        "elementwise": lambda: torch.sin(torch.ones(400_000)).sum(),
        "matrix product": lambda: a @ a,
        "convolution": lambda: F.conv2d(x, w),
        "transform": lambda: torch.fft.rfft2(x),
    }
    with torch_threads(2):
        expected = {name: call() for name, call in run.items()}

        def claim():
            for name, call in run.items():
                for found in (call(), in_thread(call)):
                    torch.testing.assert_close(found, expected[name], msg=lambda text, name=name: name + text)

        in_child(claim)
        assert torch.get_num_threads() == 2


def test_a_kernel_in_a_child_leaves_torch_on_one_core_though_the_parent_had_called_none():
    """Numba sets torch's number of threads when it starts its own; in a child torch would wait for ever for those."""
    program = """
    import multiprocessing, os, torch
    import spectral_kernels.dispatch as dispatch

    torch.set_num_threads(2)
    x = torch.ones(400_000)
    expected = torch.sin(x).sum()
    X, weight = torch.ones(1, 1, 8, 5, dtype=torch.complex64), torch.ones(1, 1, 2, 3)

    def work():
        dispatch.filters(X, weight, 8)
        assert torch.get_num_threads() == 1
        assert torch.sin(x).sum().isclose(expected)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(250)
    ended = child.exitcode
    child.kill()
    assert ended == 0, ended
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_WITHIN)
    assert done.returncode == 0, done.stderr


def in_thread(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_a_fork_waits_for_a_thread_that_compiles_so_that_the_child_can_compile():
    held = threading.Event()

    def compile_for_a_while():
        with global_compiler_lock:
            held.set()
            time.sleep(0.2)

    inside = threading.Thread(target=compile_for_a_while)
    inside.start()
    held.wait()
    in_child(lambda: np.testing.assert_equal(numba.njit(lambda x: x + 1)(2), 3))
    inside.join()


class Spectral(Dataset):
    """Its examples are made by kernels, in whatever process asks."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(i))
        pooled = SF.spectral_pool2d(x, (16, 16))
        kept = SF.threshold(sv.HalfSpectrum.of(x), 0.5).image()
        weight = torch.full((2, 3, 3, 3), 0.1, requires_grad=True)
        with sv.memory.compress_activations():
            F.conv2d(F.relu(x.requires_grad_()), weight).square().sum().backward()
        assert weight.grad is not None
        return pooled[0], kept[0], weight.grad


def test_a_data_loaders_workers_call_kernels_after_their_parent_did():
    data = Spectral()
    expected = [data[i] for i in range(len(data))]
    loader = DataLoader(data, 1, num_workers=2, multiprocessing_context="fork", timeout=ENDS_WITHIN)
    for found, known in zip(loader, expected, strict=True):
        torch.testing.assert_close([part[0] for part in found], list(known), rtol=1e-5, atol=1e-5)


def _example(i: int) -> list[np.ndarray]:  # arrays travel as bytes; tensors would need shared memory to stay open
    return [part.numpy() for part in Spectral()[i]]


def test_a_pool_of_forked_processes_calls_kernels():
    expected = [_example(i) for i in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map_async(_example, range(4)).get(ENDS_WITHIN)
    for parts, known in zip(found, expected, strict=True):
        for part, right in zip(parts, known, strict=True):
            np.testing.assert_allclose(part, right, rtol=1e-5, atol=1e-5)


def test_a_network_is_trained_in_a_forked_child():
    def loss_after_two_steps() -> float:
        torch.manual_seed(0)
        model = nn.Sequential(
            sv.nn.BandLimitedConv2d(1, 4, 5, compression=0.5),
            nn.ReLU(),
            sv.nn.SpectralPool2d((8, 8)),
            sv.nn.ParametricSpectralConv2d(4, 2),
            nn.Flatten(),
            nn.Linear(128, 3),
        )
        x, y = torch.rand(8, 1, 20, 20), torch.arange(8) % 3
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(2):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimiser.step()
        return loss.item()

    expected = loss_after_two_steps()
    # Two steps of float32 sums in another order.
    in_child(lambda: np.testing.assert_allclose(loss_after_two_steps(), expected, rtol=1e-4))


LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "cached_property"}


@pytest.mark.parametrize("path", sorted(p for root in PACKAGES for p in root.rglob("*.py")), ids=lambda p: p.stem)
def test_every_lock_is_one_that_a_fork_leaves_open(path):
    """`process` makes them. Python 3.11's `cached_property` has a lock too, one for all objects of its class."""
    if path.name == "process.py" and path.parent.name == "spectral_kernels":
        return
    tree = ast.parse(path.read_text())
    found = [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in ("threading", "multiprocessing", "functools") and node.attr in LOCKS
    ]
    found += [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("threading", "multiprocessing", "functools", "_thread")
        for alias in node.names
        if alias.name in {*LOCKS, "allocate_lock"}
    ]
    assert not found, f"{path} makes {found}; use spectral_kernels.process.Lock"
