"""A step's memory: known to the byte on small nets, and to the operating system on a large one."""

import copy
import json
import os
import random
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import specviz.nn as snn
from specviz import HalfSpectrum
from specviz.memory import measure_step
from specviz.memory import recorder as recorders

FLOAT = 4


def two_layers(width=128):
    return nn.Sequential(nn.Linear(64, width), nn.Tanh())


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(512, 5),
    )


def labels(timeline):
    """Layers and phases in the order in which they come."""
    return list(dict.fromkeys(zip(timeline.layer, timeline.phase, strict=True)))


def images():
    return torch.randn(4, 3, 8, 8)


class Call(nn.Module):
    """A module from a function, with one linear layer to train."""

    def __init__(self, function):
        super().__init__()
        self.linear = nn.Linear(64, 128)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x))


def test_tanh_keeps_its_output_and_a_linear_layer_only_what_exists_already():
    memory = measure_step(two_layers(), torch.randn(32, 64))
    assert memory.saved_bytes == memory.hooked_bytes == 32 * 128 * FLOAT
    assert memory.saved_by_layer == {"1": 32 * 128 * FLOAT}
    assert memory.parameter_bytes == memory.gradient_bytes == (64 * 128 + 128) * FLOAT
    assert memory.batch_bytes == 32 * 64 * FLOAT
    assert memory.buffer_bytes == memory.optimizer_bytes == 0
    assert memory.peak_bytes > memory.average_bytes > 0
    assert memory.workspace_bytes == memory.peak_bytes - memory.saved_bytes > 0
    assert memory.total_bytes == memory.peak_bytes + 2 * memory.parameter_bytes + memory.batch_bytes


def test_two_layers_keep_the_sum_of_what_each_keeps():
    net = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 16), nn.Sigmoid())
    memory = measure_step(net, torch.randn(32, 64))
    assert memory.saved_by_layer == {"1": 32 * 128 * FLOAT, "3": 32 * 16 * FLOAT}
    assert memory.saved_bytes == memory.hooked_bytes == 32 * (128 + 16) * FLOAT


def test_inference_saves_nothing_and_holds_a_map_and_the_one_before_it():
    memory = measure_step(two_layers(), torch.randn(32, 64), training=False)
    assert memory.saved_bytes == memory.hooked_bytes == memory.gradient_bytes == 0
    assert memory.peak_bytes == memory.workspace_bytes == 2 * 32 * 128 * FLOAT
    assert memory.peak_at == ("1", "forward")
    assert set(memory.timeline.phase) == {"forward"}


def test_a_storage_that_is_saved_by_many_counts_once():
    def thrice(x):
        y = x.tanh()
        return y * y.view(-1, 128) * y.t().t()

    memory = measure_step(Call(thrice), torch.randn(32, 64))
    assert memory.saved_bytes == memory.hooked_bytes == 2 * 32 * 128 * FLOAT  # y, and y * y


class KeepsElsewhere(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.cos())
        ctx.elsewhere = x.sin()
        return x.sin()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0] + 0 * ctx.elsewhere


def test_what_a_function_keeps_besides_saved_tensors_is_seen_by_the_allocator_alone():
    memory = measure_step(Call(KeepsElsewhere.apply), torch.randn(32, 64))
    assert memory.hooked_bytes == 32 * 128 * FLOAT
    assert memory.saved_bytes == 2 * 32 * 128 * FLOAT


def test_memory_that_a_numba_kernel_gets_from_torch_is_seen():
    def scratch(x):
        torch.empty(1_000_000).numpy()[:] = 1
        return x

    memory = measure_step(Call(scratch), torch.randn(32, 64), training=False)
    assert memory.peak_bytes == 4_000_000 + 32 * 128 * FLOAT


def test_what_a_model_replaces_at_every_step_is_not_growth():
    class Remembers(nn.Module):
        last = None

        def forward(self, x):
            self.last = None
            self.last = x.exp()
            return x

    memory = measure_step(Remembers(), torch.randn(1000), training=False)
    assert memory.timeline.alive_bytes.min() == -1000 * FLOAT
    assert memory.timeline.layer_bytes["(before the step)"][-1] == -1000 * FLOAT
    assert memory.timeline.alive_bytes[-1] == memory.saved_bytes == memory.peak_bytes == 0


class Checkpointed(nn.Module):
    def __init__(self, reentrant=None):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.body = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(6)])
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        return self.body(x) if self.reentrant is None else checkpoint(self.body, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_keeps_its_input_alone(reentrant):
    one = 500 * 64 * FLOAT
    plain = measure_step(Checkpointed(), torch.randn(500, 64))
    assert plain.saved_bytes == plain.hooked_bytes == 7 * one
    memory = measure_step(Checkpointed(reentrant), torch.randn(500, 64))
    # Besides the input: the random state, so that the recomputation draws the same numbers.
    assert one <= memory.saved_bytes <= one + torch.get_rng_state().nbytes
    assert memory.saved_bytes < memory.peak_bytes
    assert ("body.0.1", "backward") in labels(memory.timeline)


def test_a_context_is_measured_as_it_works_and_beside_it_what_it_is_handed():
    def halved():
        return torch.autograd.graph.saved_tensors_hooks(lambda t: t.half(), lambda t: t.float())

    memory = measure_step(two_layers(), torch.randn(32, 64), context=halved)
    assert memory.hooked_bytes == 32 * 128 * FLOAT
    # The batch and the weight, which exist in float32, are saved in half precision as well.
    assert memory.saved_bytes == (32 * 128 + 32 * 64) * 2
    lowered = measure_step(two_layers(), torch.randn(32, 64), context=lambda: torch.autocast("cpu", torch.bfloat16))
    assert lowered.saved_by_layer["1"] == 32 * 128 * 2


def test_the_same_step_measures_the_same_twice():
    net, x = small_net(), images()
    first, second = measure_step(net, x), measure_step(net, x)
    assert first.peak_bytes == second.peak_bytes
    assert first.saved_bytes == second.saved_bytes
    assert first.saved_by_layer == second.saved_by_layer


@pytest.mark.parametrize("make", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9)])
def test_optimiser_state_is_told_apart_and_not_part_of_the_peak(make):
    net = two_layers()
    memory = measure_step(net, torch.randn(32, 64), optimizer=make)
    each = memory.parameter_bytes
    assert memory.optimizer_bytes in (each, 2 * each + 2 * FLOAT)  # Adam counts its steps in a tensor a parameter
    assert memory.gradient_bytes == each
    assert memory.saved_bytes == 32 * 128 * FLOAT
    assert set(memory.timeline.phase) == {"forward", "backward", "step"}
    assert memory.timeline.alive_bytes[-1] == 0


def state(net, optimizer):
    tensors = [*net.state_dict().values(), torch.get_rng_state(), *[p.grad for p in net.parameters()]]
    tensors += [value for p in net.parameters() for value in optimizer.state[p].values()]
    return [t if t is None else t.clone() for t in tensors], [m.training for m in net.modules()]


@pytest.mark.parametrize("fails_in", [None, 1, 2, 3])  # never, in the warm-up, under the hooks, while measured
def test_afterwards_all_is_as_it_was_also_if_the_step_raised(fails_in):
    calls = []

    def cross_entropy(output, target):
        calls.append(random.random())
        assert len(calls) != fails_in
        return F.cross_entropy(output, target)

    net, x = small_net(), images()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    F.cross_entropy(net(x), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    net[1].eval()
    gradients = [p.grad for p in net.parameters()]
    before, flags = state(net, optimizer)
    inputs, groups, python = x.clone(), copy.copy(optimizer.param_groups), random.getstate()
    try:
        measure_step(net, x, loss=cross_entropy, targets=torch.tensor([0, 1, 2, 3]), optimizer=optimizer)
        assert fails_in is None
    except AssertionError:
        assert fails_in is not None
    after, flags_after = state(net, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is g for p, g in zip(net.parameters(), gradients, strict=True))
    assert flags == flags_after
    assert optimizer.param_groups == groups
    assert torch.equal(x, inputs)
    assert random.getstate() == python
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    optimizer.step()  # still the optimiser of these parameters
    assert not torch.equal(net[0].weight, before[0])


def test_a_buffer_that_the_model_replaces_comes_back():
    class Counts(Call):
        def __init__(self):
            super().__init__(torch.tanh)
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, x):
            self.steps = self.steps + 1
            return super().forward(x) * self.steps

    net = Counts()
    steps = net.steps
    measure_step(net, torch.randn(2, 64))
    assert net.steps is steps
    assert steps == 0


def test_batch_norm_runs_on_and_is_set_back():
    net = small_net()
    measure_step(net, images(), warmup=2)
    assert net[1].num_batches_tracked == 0
    assert torch.equal(net[1].running_mean, torch.zeros(8))


def test_a_model_in_training_mode_keeps_what_it_froze_and_any_other_is_set():
    seen = []
    net = two_layers()
    net.append(nn.Dropout()).append(Watch(seen))
    net[2].eval()
    measure_step(net, torch.randn(2, 64))
    assert set(seen) == {(True, True)}
    assert not net[2].training
    seen.clear()
    measure_step(net, torch.randn(2, 64), training=False)
    assert set(seen) == {(False, False)}
    net.eval()
    seen.clear()
    measure_step(net, torch.randn(2, 64))
    assert set(seen) == {(True, True)}
    assert not any(m.training for m in net.modules())


class Watch(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        self.seen.append((self.training, torch.is_grad_enabled()))
        return x


def test_a_model_that_writes_into_its_input_does_not_touch_the_batch():
    x = torch.randn(4, 64)
    before = x.clone()
    measure_step(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(64, 2)), x)
    assert torch.equal(x, before)


def test_a_loss_may_have_parameters_of_its_own():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output):
            return self.scale * output.mean()

    loss = Scaled()
    memory = measure_step(two_layers(), torch.randn(2, 64), loss=loss)
    assert loss.scale.grad is None
    assert memory.gradient_bytes == memory.parameter_bytes + FLOAT


def test_a_model_without_parameters_may_have_an_input_that_learns():
    x = torch.randn(32, 64, requires_grad=True)
    memory = measure_step(nn.Tanh(), x)
    assert memory.saved_bytes == memory.gradient_bytes == x.nbytes
    assert x.grad is None


def test_every_moment_has_a_layer_and_a_phase():
    memory = measure_step(small_net(), images(), loss=nn.CrossEntropyLoss(), targets=torch.tensor([0, 1, 2, 3]))
    line = memory.timeline
    assert len(line) == len(line.seconds) == len(line.alive_bytes) == len(line.layer) == len(line.phase)
    assert line.seconds[0] == line.alive_bytes[0] == line.alive_bytes[-1] == 0
    assert (np.diff(line.seconds) >= 0).all()
    assert line.alive_bytes.max() == memory.peak_bytes
    assert np.array_equal(sum(line.layer_bytes.values()), line.alive_bytes)
    layers = [(layer, phase) for layer, phase in labels(line) if not layer.startswith("(")]
    # An in-place ReLU allocates nothing going forward; Flatten and its way back never do.
    forward = [("0", "forward"), ("1", "forward"), ("3", "forward"), ("5", "forward")]
    assert [at for at in layers if at[1] == "forward"] == forward
    backward = [layer for layer, phase in layers if phase == "backward"]
    assert backward == sorted(backward, reverse=True)
    assert {"5", "1", "0"} <= set(backward)


def test_nested_layers_go_by_their_full_names_and_a_block_owns_what_it_does_itself():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 64)

        def forward(self, x):
            return (x + self.inner(x)).tanh()

    net = nn.Sequential(nn.Linear(64, 64), nn.Sequential(Residual()))
    memory = measure_step(net, torch.randn(32, 64))
    one = 32 * 64 * FLOAT
    assert memory.saved_by_layer == {"0": one, "1.0": one}  # the inner layer's input, the block's own tanh
    backward = [layer for layer, phase in labels(memory.timeline) if phase == "backward" and not layer.startswith("(")]
    assert backward == ["1.0", "1.0.inner", "0"]


def test_layers_that_pass_on_spectra_have_their_backward_too():
    torch.manual_seed(0)
    blocks = [snn.SpecNetBlock2d(3, 8, 3, beta=0.2), snn.SpecNetBlock2d(8, 8, 3, beta=0.2)]
    memory = measure_step(nn.Sequential(*blocks, Image()), torch.randn(4, 3, 16, 16))
    backward = [layer for layer, phase in labels(memory.timeline) if phase == "backward" and not layer.startswith("(")]
    assert backward == ["2", "1", "0"]


class Image(nn.Module):
    def forward(self, X):
        return X.image()


def test_a_thinned_timeline_keeps_the_peak():
    net = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(10)])
    full = measure_step(net, torch.randn(8, 8)).timeline
    for points in (8, 33):
        memory = measure_step(net, torch.randn(8, 8), points=points)
        line = memory.timeline
        assert points / 2 < len(line) <= points < len(full)
        assert line.alive_bytes.max() == memory.peak_bytes == full.alive_bytes.max()
        assert line.alive_bytes[0] == line.alive_bytes[-1] == 0
        assert np.array_equal(sum(line.layer_bytes.values()), line.alive_bytes)
        assert memory.peak_at[0] in line.layer


def test_a_timeline_is_never_empty():
    memory = measure_step(nn.Identity(), torch.randn(4), training=False)
    assert len(memory.timeline) == 2
    assert memory.peak_bytes == memory.average_bytes == 0


def test_a_record_is_plain_and_a_print_is_short():
    memory = measure_step(two_layers(), torch.randn(32, 64))
    record = json.loads(json.dumps(memory.to_record()))
    assert record["timeline"]["seconds"] == pytest.approx(memory.timeline.seconds.tolist(), abs=1e-9)
    assert record["peak_bytes"] == memory.peak_bytes
    assert record["total_bytes"] == memory.total_bytes
    assert record["saved_by_layer"] == memory.saved_by_layer
    assert record["timeline"]["alive_bytes"] == memory.timeline.alive_bytes.tolist()
    assert len(record["timeline"]["layer"]) == len(memory.timeline)
    assert re.match(r"one training step on cpu, its peak in \S+, backward\n  peak ", str(memory))


def test_spectral_models_measure_like_any_other():
    net = nn.Sequential(snn.BandLimitedConv2d(3, 8, 3, padding=1, compression=0.5), nn.Tanh())
    memory = measure_step(net, torch.randn(2, 3, 16, 16))
    assert memory.saved_by_layer["1"] == 2 * 8 * 16 * 16 * FLOAT
    complex_output = measure_step(Call(torch.fft.rfft), torch.randn(2, 64))
    assert complex_output.peak_bytes > 0


def test_a_spectrum_for_an_output_needs_a_loss():
    net = Call(HalfSpectrum.of)
    x = torch.randn(2, 3, 16, 64)
    with pytest.raises(TypeError, match="the model returned a HalfSpectrum, .* pass loss="):
        measure_step(net, x)
    assert measure_step(net, x, loss=lambda X: X.image().square().mean()).saved_bytes > 0


def test_several_inputs_and_a_loss_of_a_tuple():
    memory = measure_step(
        nn.Bilinear(8, 8, 4), (torch.randn(16, 8), torch.randn(16, 8)), loss=lambda out, y: (out - y[0]).square().sum(),
        targets=(torch.zeros(16, 4), None),
    )  # fmt: skip
    assert memory.batch_bytes == (2 * 16 * 8 + 16 * 4) * FLOAT


def test_what_was_compiled_keeps_its_inside_to_itself():
    net = nn.Sequential(nn.Linear(64, 64), nn.Sequential(nn.Linear(64, 64), nn.Tanh()), nn.Linear(64, 8))
    net[1]._compiled_call_impl = net[1]._call_impl
    memory = measure_step(net, torch.randn(8, 64))
    assert "1.0" not in memory.timeline.layer
    assert {"0", "2", "(model)"} <= set(memory.timeline.layer)


OTHER_MODELS = torch.optim.SGD(two_layers().parameters())


@pytest.mark.parametrize(
    ("model", "batch", "options", "error", "words"),
    [
        (nn.Tanh(), torch.randn(4), {}, ValueError, "no parameters, all are frozen"),
        (two_layers().requires_grad_(False), torch.randn(4, 64), {}, ValueError, "all are frozen"),
        (nn.LSTM(64, 8), torch.randn(4, 2, 64), {}, TypeError, "returned a tuple, .* pass loss="),
        (nn.Flatten(), torch.ones(4, 4, dtype=torch.int64), {}, TypeError, "returned a torch.int64 tensor"),
        (two_layers(), torch.randn(4, 64), {"loss": lambda out: out}, ValueError, r"shape \(4, 128\), but one number"),
        (two_layers(), torch.randn(4, 64), {"loss": lambda out: 3.0}, ValueError, "loss gave float"),
        (two_layers(), torch.randn(4, 64), {"targets": torch.ones(4)}, ValueError, "targets need a loss"),
        (two_layers(), torch.randn(4, 64), {"warmup": 0}, ValueError, "warmup=0"),
        (two_layers(), torch.randn(4, 64), {"points": 7}, ValueError, "points=7"),
        (two_layers(), "images", {}, TypeError, "batch is str and holds no tensor"),
        (two_layers(), torch.empty(4, 64, device="meta"), {}, ValueError, r"on meta and the model on cpu; .*\('cpu'\)"),
        (two_layers(), torch.randn(4, 64), {"targets": torch.ones(4, device="meta")}, ValueError, "targets is on meta"),
        (two_layers().to("meta"), torch.empty(4, 64, device="meta"), {}, ValueError, "whose allocator is not known"),
        (nn.Sequential(two_layers(), two_layers().to("meta")), torch.randn(4, 64), {}, ValueError, "cpu, meta"),
        (two_layers(), torch.randn(4, 64), {"optimizer": list}, TypeError, "optimizer gave a list"),
        (two_layers(), torch.randn(4, 64), {"optimizer": OTHER_MODELS}, ValueError, "anew"),
    ],
)  # fmt: skip
def test_a_step_that_cannot_be_made_says_why(model, batch, options, error, words):
    with pytest.raises(error, match=words):
        measure_step(model, batch, **options)


def test_nothing_is_printed(capfd):
    measure_step(two_layers(), torch.randn(4, 64))
    assert capfd.readouterr() == ("", "")


STEP = """
    import gc, re, torch
    from torch import nn
    from specviz.memory import measure_step
    gc.freeze()  # what imports made: collecting garbage is quicker without it
    torch.manual_seed(0)
    torch.set_num_threads(2)
    # Convolutions of one pixel: the maps of larger ones, in a ninth of their time.
    layers = [nn.Conv2d(3, 32, 1), nn.Tanh(), nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Conv2d(32, 32, 1), nn.Tanh())
    x = torch.randn(48, 3, 128, 128)
"""
PLAIN = """
    def status(key):
        return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

    net(x[:1]).mean().backward()  # libraries start their threads
    with open("/proc/self/clear_refs", "w") as marks:
        marks.write("5")  # the high-water mark starts anew
    before = status("VmRSS")
    net(x).mean().backward()
    print(status("VmHWM") - before)
"""
MEASURED = """
    memory = measure_step(net, x)
    print(memory.peak_bytes)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's resettable high-water mark")
def test_the_peak_is_what_the_operating_system_sees():
    # Freed blocks go back to the system at once, as far as malloc can do so.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

    def bytes_of(rest):
        program = textwrap.dedent(STEP) + textwrap.dedent(rest)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=environment
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    resident, measured = bytes_of(PLAIN), bytes_of(MEASURED)
    assert measured >= 500e6
    assert abs(measured / resident - 1) < 0.15, (measured, resident)


def test_cuda_counters_give_the_peak_between_two_layers(monkeypatch):
    """The device is imagined: alive now, and most since the last reading, as its counters would tell."""
    readings = {"alive": 1000, "most": 9999}

    def reset(_):
        readings["most"] = readings["alive"]

    def goes(*amounts):
        for amount in amounts:
            readings["alive"] = amount
            readings["most"] = max(readings["most"], amount)

    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: readings["alive"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: readings["most"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    recorder = recorders.CudaCounters(torch.device("cuda"))
    with recorder:
        recorder.mark("(model)", "forward")
        goes(1600)
        recorder.mark("0", "forward")
        goes(4000, 2512)
        recorder.forward_ends(torch.ones(()))  # its value takes a block of 512 bytes
        recorder.mark("(loss)", "backward")
        goes(3000, 1000)
        recorder.mark("(model)", "backward")
    saved, by_layer, line = recorder.result()
    assert (saved, by_layer) == (1000, {})
    assert line.alive_bytes.tolist() == [0, 600, 600, 3000, 1512, 2000, 0]
    assert line.layer[3] == "0"
    assert line.phase[-2:] == ("backward", "backward")
    assert (np.diff(line.seconds) >= 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_the_same_step_is_measured_by_its_allocator():
    net, x = two_layers().cuda(), torch.randn(4096, 64, device="cuda")
    memory = measure_step(net, x, optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    assert memory.saved_bytes == memory.hooked_bytes == 4096 * 128 * FLOAT
    assert memory.device == "cuda:0"
    assert memory.gradient_bytes == memory.parameter_bytes
    line = memory.timeline
    assert line.alive_bytes.max() == memory.peak_bytes
    assert {"0", "1", "(optimizer)"} <= set(line.layer)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    net(x).mean().backward()
    assert memory.peak_bytes == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=0.1)
    inference = measure_step(net, x, training=False)
    assert inference.saved_bytes == 0
    assert inference.peak_bytes == 2 * 4096 * 128 * FLOAT


def test_a_print_says_whether_the_step_trained():
    net = two_layers()
    assert str(measure_step(net, torch.randn(2, 64), training=False)).startswith("one inference step")
