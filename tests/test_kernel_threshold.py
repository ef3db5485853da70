"""The threshold kernel: every form gives exactly the reference's bitmap and values."""

import threading
from itertools import product

import numpy as np
import pytest
import torch
from spectral_kernels import activate, bitmap, dispatch, threshold
from spectral_kernels.dispatch import _activate, _threshold
from spectral_kernels.dispatch._devices import on_gpu
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
DEVICES = ["cpu", pytest.param("cuda", marks=[gpu, needs_gpu])]

# Around a CPU thread's share (8192) and a GPU block's (1024), and large enough for several of both.
SIZES = [0, 1, 7, 8, 9, 1023, 1024, 1025, 8191, 8192, 8193, 100_003]
BETAS = [0.0, 0.5, 1.5, 100.0]


def spectrum(entries, dtype=torch.complex64, seed=0):
    return torch.randn(entries, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_packing_equals_the_reference(device, dtype):
    for entries, beta in product(SIZES, BETAS):
        x_hat = spectrum(entries, dtype)
        bitmap, values = dispatch.threshold_pack(x_hat.to(device), beta)
        expected_bitmap, expected_values = threshold.reference(x_hat.numpy(), beta)
        np.testing.assert_array_equal(bitmap.cpu().numpy(), expected_bitmap, err_msg=f"{entries=} {beta=}")
        np.testing.assert_array_equal(values.cpu().numpy(), expected_values, err_msg=f"{entries=} {beta=}")
        assert values.dtype == dtype


@pytest.mark.parametrize("device", DEVICES)
def test_expanding_undoes_packing(device):
    for entries, beta in product(SIZES, BETAS):
        x_hat = spectrum(entries)
        dense = dispatch.threshold_expand(*dispatch.threshold_pack(x_hat.to(device), beta), (entries,))
        assert torch.equal(dense.cpu(), torch.where(x_hat.abs() > beta, x_hat, 0)), f"{entries=} {beta=}"


@pytest.mark.parametrize("device", DEVICES)
def test_gathering_takes_what_a_bitmap_marks(device):
    for entries, beta in product(SIZES, BETAS):
        x_hat, other = spectrum(entries), spectrum(entries, seed=1)
        bitmap, _ = dispatch.threshold_pack(x_hat.to(device), beta)
        marked = other[x_hat.abs() > beta]
        assert torch.equal(dispatch.threshold_gather(other.to(device), bitmap).cpu(), marked), f"{entries=} {beta=}"
        assert torch.equal(dispatch.threshold_gather(other, bitmap.cpu(), form="reference"), marked)


@pytest.mark.parametrize("device", DEVICES)
def test_a_bitmap_that_marks_entries_beyond_the_last_is_refused(device):
    x = torch.ones(3, dtype=torch.complex64, device=device)
    for marks, form in product([0b1000_0000, 0b0000_1111], ["auto", "reference"] if device == "cpu" else ["auto"]):
        with pytest.raises(ValueError, match="beyond the last of 3"):
            dispatch.threshold_gather(x, torch.tensor([marks], dtype=torch.uint8, device=device), form=form)
    assert torch.equal(dispatch.threshold_gather(x, torch.tensor([7], dtype=torch.uint8, device=device)), x)


# A word of a warp's vote is 32 entries, its eight rounds are 256, a block takes 1024.
AWKWARD = [0, 1, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 1_000_007]


@gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("beta", [0.0, 1.0, 100.0], ids=["all kept", "some kept", "none kept"])
def test_votes_and_shared_memory_keep_the_same_bits_on_a_gpu(dtype, beta):
    on = on_gpu(torch.device("cuda"))
    for entries in AWKWARD:
        x_hat, other = spectrum(entries, dtype), spectrum(entries, dtype, seed=1).cuda()
        if beta:
            x_hat[::7], x_hat[31::32] = 1, complex("nan")  # ties at beta 1, dropped; NaN, kept
        expected = threshold.reference(x_hat.numpy(), beta)
        made = {}
        for ballot in (True, False):
            store = threshold.cuda(x_hat.cuda(), beta, **on, ballot=ballot)
            dense = threshold.cuda_expand(*store, entries, **on, ballot=ballot)
            gathered = threshold.cuda_gather(other, store[0], **on, ballot=ballot)
            made[ballot] = [array.cpu().numpy().tobytes() for array in (*store, dense, gathered)]
        assert made[True] == made[False], f"{entries=}"
        bitmap, values = expected
        dense = threshold.reference_expand(bitmap, values, entries)
        gathered = threshold.reference_gather(other.cpu().numpy(), bitmap)
        assert made[True] == [array.tobytes() for array in (bitmap, values, dense, gathered)], f"{entries=}"


def test_off_the_simulator_kernels_vote_and_a_block_is_whole_warps():
    for module in (threshold, bitmap, activate):
        module.kernels()
        for tile in (4, 48):
            module.kernels(tile, ballot=False)
            with pytest.raises(ValueError, match=f"tile={tile} is no multiple of a warp's 32 threads.*ballot=False"):
                module.kernels(tile)


def test_the_reference_is_what_its_docstring_says():
    x_hat = np.array([3, 0.5, 0, -2j, 1, 1.5 + 2j, 0, 0, 9], np.complex64)
    bitmap, values = threshold.reference(x_hat, 1.0)
    assert bitmap.tolist() == [0b00101001, 0b1]  # entries 0, 3, 5 and 8; the 1 is a tie and goes
    assert values.tolist() == [3, -2j, 1.5 + 2j, 9]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", ["auto", "reference"])
def test_a_tie_is_dropped_and_nan_is_kept(device, form):
    if device == "cuda" and form == "reference":
        pytest.skip("the reference runs on the CPU")
    # 0.6 + 0.8i has magnitude 1.0000000298 in float32's own numbers: just above.
    x_hat = torch.tensor([1, 1j, -1, 0.6 + 0.8j, torch.nan, 1j * torch.nan, torch.inf, 0], dtype=torch.complex64)
    _, values = dispatch.threshold_pack(x_hat.to(device), 1.0, form=form)
    assert values[0] == x_hat[3]
    assert values[1:3].isnan().all()
    assert values[3].isinf()
    assert len(values) == 4


PARTS = [0.0, -0.0, 1.0, -0.5, 1e-30, 1e30, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1e30, 1e200, float("inf")])
def test_both_forms_agree_on_every_pair_of_special_numbers_to_the_bit(dtype, beta):
    z = torch.tensor([complex(a, b) for a in PARTS for b in PARTS], dtype=dtype)
    made = []
    for form in ("cpu", "reference"):
        bitmap, values = dispatch.threshold_pack(z, beta, form)
        dense = dispatch.threshold_expand(bitmap, values, (len(z),), form)
        gathered = dispatch.threshold_gather(z.flip(0), bitmap, form)
        made.append([array.numpy().tobytes() for array in (bitmap, values, dense, gathered)])
    assert made[0] == made[1]


@pytest.mark.parametrize("device", DEVICES)
def test_conjugates_share_one_fate_at_every_position_of_a_vector(device):
    # z and its conjugate stand at different places of SIMD lanes; beta is z's own magnitude, so all are near ties.
    z = spectrum(4097)
    power = torch.view_as_real(z).double().square().sum(-1)
    for beta in power.sqrt()[:50].tolist():
        own, _ = dispatch.threshold_pack(z.to(device), beta)
        shifted = torch.cat([z.new_zeros(8), z.conj().resolve_conj()])
        partner, _ = dispatch.threshold_pack(shifted.to(device), beta)
        assert torch.equal(own, partner[1:])


@pytest.mark.parametrize("device", DEVICES)
def test_lazily_conjugated_and_strided_tensors_are_read_as_they_look(device):
    x_hat = spectrum(600).reshape(20, 30).to(device)
    for view in (x_hat.conj(), x_hat.T, x_hat[::2, 1::3], x_hat.mH, -x_hat.conj()):
        bitmap, values = dispatch.threshold_pack(view, 1.0)
        plain = view.cpu().resolve_conj().resolve_neg().contiguous()
        assert torch.equal(values.cpu(), plain[plain.abs() > 1.0])
        assert torch.equal(
            dispatch.threshold_expand(bitmap, values, tuple(view.shape)).cpu(),
            torch.where(plain.abs() > 1.0, plain, 0),
        )


@pytest.mark.parametrize("device", DEVICES)
def test_inputs_stay_as_they_were(device):
    x_hat = spectrum(1000).to(device)
    before = x_hat.clone()
    dispatch.threshold_pack(x_hat, 0.7)
    assert torch.equal(x_hat, before)


def test_two_threads_may_pack_at_once():
    # Numba's plain thread pool aborts the process when it is entered twice; the dispatcher makes calls take turns.
    x_hat = spectrum(200_000)
    expected = dispatch.threshold_pack(x_hat, 1.0, form="reference")
    results = {}

    def work(i):
        for _ in range(20):
            results[i] = dispatch.threshold_pack(x_hat, 1.0)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got, want) for pair in results.values() for got, want in zip(pair, expected, strict=True))


@pytest.mark.parametrize("beta", [-0.1, float("nan")])
def test_beta_must_not_be_negative_or_nan(beta):
    with pytest.raises(ValueError, match=r"beta=.*must be a number >= 0"):
        dispatch.threshold_pack(spectrum(4), beta)


def test_real_input_is_refused():
    with pytest.raises(TypeError, match="complex64 or complex128 coefficients, not torch.float32"):
        dispatch.threshold_pack(torch.ones(4), 1.0)


def test_asking_for_cuda_on_a_cpu_tensor_is_an_error():
    with pytest.raises(ValueError, match=r"form='cuda' cannot run on a tensor on cpu; move it with .to\('cuda'\)"):
        dispatch.threshold_pack(spectrum(4), 1.0, form="cuda")
    with pytest.raises(ValueError, match="pick one of auto, reference, cpu, cuda"):
        dispatch.threshold_pack(spectrum(4), 1.0, form="gpu")
    with pytest.raises(ValueError, match="no kernel runs on device meta"):
        dispatch.threshold_pack(spectrum(4).to("meta"), 1.0)


def test_a_bitmap_that_does_not_fit_is_refused():
    bitmap, values = dispatch.threshold_pack(spectrum(100), 1.0)
    with pytest.raises(ValueError, match="needs a uint8 bitmap of 26 bytes, got 13"):
        dispatch.threshold_expand(bitmap, values, (201,))
    with pytest.raises(ValueError, match="needs a uint8 bitmap of 26 bytes, got 13"):
        dispatch.threshold_gather(spectrum(201), bitmap)
    with pytest.raises(ValueError, match="marks .* entries as kept, but there are"):
        dispatch.threshold_expand(bitmap, values[:-1], (100,))


# --- under torch's own tools


def test_packing_and_the_way_back_are_operators_of_torch():
    z = spectrum(40)
    bitmap, values = dispatch.threshold_pack(z, 1.0)
    for operator, arguments in (
        (_threshold._pack, (z, 1.0, "cpu")),
        (_threshold._expand, (bitmap, values, 40, "cpu")),
        (_threshold._gather, (z, bitmap, _threshold.UNKNOWN, "cpu")),
        (_activate._activate, (z, 1.0, "tanh", True, "cpu")),
        (_activate._backward, (z, bitmap, values, "tanh", "cpu")),
    ):
        torch.library.opcheck(operator.overload, arguments)


def there_and_back(z):
    return dispatch.threshold_expand(*dispatch.threshold_pack(z, 1.0), z.shape)


def test_compiled_traced_and_exported_they_keep_what_the_values_say():
    z, other = spectrum(40), 3 * spectrum(40, seed=1)  # which keeps another number of coefficients
    torch._dynamo.reset()
    for run in (
        torch.compile(there_and_back, backend="aot_eager", fullgraph=True),
        torch.jit.trace(there_and_back, z),
        torch.fx.experimental.proxy_tensor.make_fx(there_and_back)(z),
    ):
        assert torch.equal(run(z), there_and_back(z))
        assert torch.equal(run(other), there_and_back(other))


def test_expanding_and_gathering_are_linear_in_both_modes_and_each_others_adjoint():
    z = spectrum(20, torch.complex128)
    bitmap, values = dispatch.threshold_pack(z, 1.0)
    values.requires_grad_()
    z.requires_grad_()
    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    for run, x in (
        (lambda v: dispatch.threshold_expand(bitmap, v, (4, 5)), values),
        (lambda x: dispatch.threshold_gather(x, bitmap), z),
    ):
        assert gradcheck(run, (x,), **modes)
        assert gradgradcheck(run, (x,))
    gathered = dispatch.threshold_gather(z, bitmap)
    torch.testing.assert_close(
        torch.vdot(values, gathered), torch.vdot(dispatch.threshold_expand(bitmap, values, (20,)), z)
    )


@pytest.mark.parametrize("pack", [dispatch.threshold_pack, dispatch.activate])
def test_transforms_that_packing_cannot_follow_are_refused_by_name(pack):
    z, name = spectrum(20), pack.__name__

    def packed(z):
        return pack(z, 1.0)[-1].real

    assert not packed(z.requires_grad_()).requires_grad  # in reverse mode it stands outside of autograd, as it says
    with pytest.raises(RuntimeError, match=f"{name} has no derivative"):
        torch.func.jvp(packed, (z.detach(),), (z.detach(),))
    with pytest.raises(RuntimeError, match=f"{name} has no derivative"):
        torch.func.grad(lambda z: packed(z).sum())(z.detach())
    with pytest.raises(RuntimeError, match=f"{name} cannot be mapped over samples: each of them keeps another number"):
        torch.func.vmap(packed)(z.detach().reshape(4, 5))
    with FakeTensorMode(), pytest.raises(RuntimeError, match="only a run can tell: .* ShapeEnv"):
        packed(torch.zeros(20, dtype=torch.complex64))
