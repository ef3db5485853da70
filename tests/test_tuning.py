"""What is tried out at a shape's first call: only where it may be, once, unseen by whoever counts or stores."""

import threading
import time

import pytest
import torch
from spectral_kernels import calibration
from torch.utils.flop_counter import FlopCounterMode

import specviz.functional as SF
from specviz.functional import rates, tuning

X, W = torch.rand(2, 3, 12, 12), torch.rand(4, 3, 5, 5)


pytestmark = pytest.mark.usefixtures("measured")


class Runs:
    """Algorithms that take so many milliseconds, and what was run."""

    def __init__(self, **milliseconds: float) -> None:
        self.milliseconds, self.ran = milliseconds, []

    def __call__(self, algorithm, x, weight):
        self.ran.append(algorithm)
        time.sleep(1e-3 * self.milliseconds[algorithm])
        return x.sum() * weight.sum()


def quickest(run, likely="a", numbers=(1,), x=X, **estimates):
    expected = estimates or {"a": 1e6, "b": 1.5e6}
    return tuning.quickest(numbers, lambda: expected, lambda _: likely, run, x, W)


def test_the_quicker_of_two_near_ones_is_kept():
    run = Runs(a=8, b=1)
    assert quickest(run) == "b"
    tried = len(run.ran)
    assert quickest(run) == "b"
    assert len(run.ran) == tried  # once for a shape
    assert quickest(Runs(a=1, b=8), numbers=(2,)) == "a"


def test_what_the_estimates_tell_apart_is_not_tried():
    run = Runs(a=2, b=1)
    assert quickest(run, a=1e6, b=1e7) == "a"
    assert set(run.ran) == {"a"}


def test_where_the_likely_one_takes_longer_than_estimated_others_are_tried():
    """A depth-wise convolution of 15 x 15 was estimated at a fifth of its time, and nothing else was tried."""
    assert calibration.ESTIMATES_ERR < 5
    assert quickest(Runs(a=50, b=1), a=1e6, b=5e6) == "b"


def test_what_is_tried_within_a_trial_is_spent_once():
    """A layer's algorithms are tried, and within one of them its passes: the inner time counted twice."""
    inner = Runs(c=4, d=8)

    def run(algorithm, x, weight):
        quickest(inner, "c", numbers=(8,), c=1e6, d=1e6)
        return x.sum() * weight.sum()

    start = time.perf_counter()
    quickest(run, numbers=(7,))
    passed = time.perf_counter() - start
    assert inner.ran
    assert 0 < tuning._spent <= passed


def test_one_that_is_alone_is_not_timed():
    run = Runs(a=8)
    assert quickest(run, a=1e6) == "a"
    assert run.ran == []


@pytest.mark.parametrize("way", ["shipped", "deterministic", "off", "time"])
def test_where_nothing_may_be_tried_the_likely_one_is_taken(way, monkeypatch):
    run = Runs(a=8, b=1)
    if way == "shipped":
        with rates.shipped():
            assert quickest(run) == "a"
    elif way == "off":
        with tuning.off():
            assert quickest(run) == "a"
    elif way == "time":
        monkeypatch.setattr(tuning, "SECONDS", 1e-3)
        assert quickest(run) == "a"
    else:
        torch.use_deterministic_algorithms(True)
        try:
            assert quickest(run) == "a"
        finally:
            torch.use_deterministic_algorithms(False)
    assert run.ran == []


def test_a_process_spends_no_more_than_its_seconds(monkeypatch):
    monkeypatch.setattr(tuning, "SECONDS", 0.1)
    run = Runs(a=8, b=8)
    for number in range(50):
        quickest(run, numbers=(number,), a=1e5, b=1e5)
    assert tuning._spent < 0.1 + 0.2  # the last one began in time


def test_what_was_found_counts_when_the_time_for_trying_is_spent(monkeypatch):
    assert quickest(Runs(a=8, b=1)) == "b"
    monkeypatch.setattr(tuning, "_spent", tuning.SECONDS + 1)
    assert quickest(Runs(a=8, b=1)) == "b"
    assert quickest(Runs(a=8, b=1), numbers=(2,)) == "a"
    assert [each["shape"] for each in tuning.results()] == [[1]]  # the other was not tried, and may be another time


def test_a_process_that_goes_on_may_try_again(monkeypatch):
    """A model of many layers spends its first seconds; a tenth of the time that follows is for the next."""
    monkeypatch.setattr(tuning, "_spent", tuning.SECONDS + 5)
    assert quickest(Runs(a=8, b=1)) == "a"
    monkeypatch.setattr(tuning, "_began", time.perf_counter() - 100)
    assert quickest(Runs(a=8, b=1)) == "b"


def test_estimates_are_of_the_processor_and_tell_nothing_of_another_device():
    assert tuning._of_device({"a": 1.0, "b": 100.0}, "cpu") == {"a": 1.0, "b": 100.0}
    assert tuning._of_device({"a": 1.0, "b": 100.0}, "cuda") == {"a": 0.0, "b": 0.0}


def test_where_data_choose_the_band_nothing_is_tried():
    """Each batch has a band of its own, and would be a shape of its own."""
    SF.band_limited_conv2d(X, W, padding=2, energy=0.9)
    SF.band_limited_conv3d(torch.rand(2, 2, 6, 6, 6), torch.rand(2, 2, 3, 3, 3), energy=0.9)
    assert not tuning.results()


def test_one_that_memory_does_not_suffice_for_is_not_taken():
    def run(algorithm, x, weight):
        if algorithm == "b":
            raise RuntimeError("can't allocate memory")
        time.sleep(5e-3)
        return x.sum()

    assert quickest(run) == "a"


def test_threads_that_come_together_try_once():
    run = Runs(a=8, b=1)
    threads = [threading.Thread(target=quickest, args=(run,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run.ran) <= 2 * (tuning._ROUNDS + 1)


def convolved(x=X, w=W, compression=0.5):
    return SF.band_limited_conv2d(x, w, padding=2, compression=compression)


def cases() -> set:
    return {(tuple(each["shape"]), each["step"]) for each in tuning.results()}


def test_a_convolution_is_tried_and_its_result_is_the_forced_one():
    y = convolved()
    (found,) = tuning.results()
    forced = SF.band_limited_conv2d(X, W, padding=2, compression=0.5, algorithm=found["algorithm"])
    assert torch.equal(y, forced)


def test_a_step_is_another_case_than_a_forward_pass():
    convolved()
    w = W.clone().requires_grad_()
    y = convolved(w=w)
    assert w.grad is None  # what was tried left nothing
    y.sum().backward()
    assert sorted(step for _, step in cases()) == [False, True]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
@pytest.mark.parametrize("compression", [0.0, 0.5])
def test_every_kind_is_tried_and_right(dims, transposed, compression):
    name = f"band_limited_conv{'_transpose' if transposed else ''}{dims}d"
    call = getattr(SF, name)
    x = torch.rand(2, 4, *(7,) * dims, dtype=torch.float64)
    w = torch.rand(4, 4, *(3,) * dims, dtype=torch.float64)
    y = call(x, w, padding=1, compression=compression)
    for algorithm in ("gemm", "fft"):
        forced = call(x, w, padding=1, compression=compression, algorithm=algorithm)
        torch.testing.assert_close(y, forced, atol=1e-10, rtol=1e-10)
    assert len(tuning.results()) == 1


def test_whoever_stores_what_backward_needs_does_not_see_what_was_tried():
    def stored() -> int:
        seen = []
        w = W.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
            convolved(w=w).sum().backward()
        return len(seen)

    first = stored()  # which tries
    assert tuning.results()
    assert stored() == first


def test_whoever_counts_operations_sees_one_convolution():
    with FlopCounterMode(display=False) as first:
        convolved()
    assert not tuning.results()  # under a mode nothing is tried
    with FlopCounterMode(display=False) as second:
        convolved()
    assert first.get_total_flops() == second.get_total_flops()


def test_random_numbers_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    convolved()
    assert tuning.results()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("tool", ["vmap", "jvp", "trace", "fake", "meta"])
def test_under_torchs_tools_nothing_is_tried(tool):
    if tool == "vmap":
        torch.func.vmap(lambda x: convolved(x[None])[0])(X)
    elif tool == "jvp":
        torch.func.jvp(convolved, (X,), (X,))
    elif tool == "trace":
        torch.jit.trace(convolved, (X,), check_trace=False)
    elif tool == "fake":
        from torch._subclasses import FakeTensorMode

        with FakeTensorMode() as mode:
            convolved(mode.from_tensor(X), mode.from_tensor(W))
    else:
        convolved(X.to("meta"), W.to("meta"))
    assert not tuning.results()


def test_a_compiled_model_holds_what_the_rates_say():
    torch.compile(convolved, backend="aot_eager")(X)
    assert not tuning.results()


def test_under_inference_mode_it_is_tried_too():
    with torch.inference_mode():
        convolved()
    assert tuning.results()


def test_another_process_goes_on_with_what_was_found():
    convolved()
    found = tuning.results()
    tuning.forget()
    others = [{**found[0], "algorithm": "fft"}]
    tuning.load(others)
    assert torch.equal(convolved(), SF.band_limited_conv2d(X, W, padding=2, compression=0.5, algorithm="fft"))
    assert tuning.results() == others


@pytest.mark.parametrize("bad", [None, [1], [{}], [{"shape": "ab"}], {"shape": [1]}])
def test_what_is_no_list_of_results_is_refused_and_changes_nothing(bad):
    convolved()
    before = tuning.results()
    with pytest.raises(ValueError, match=r"not the results of `tuning.results\(\)`"):
        tuning.load(bad)
    assert tuning.results() == before


def test_an_algorithm_that_cannot_give_the_result_is_not_taken():
    """Results of another version may name one that this shape does not have."""
    convolved()
    tuning.load([{**tuning.results()[0], "algorithm": "direct"}])
    torch.testing.assert_close(convolved(), SF.band_limited_conv2d(X, W, padding=2, compression=0.5, algorithm="gemm"))
