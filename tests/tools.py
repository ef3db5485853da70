"""What tests share. Of torch's tools: the same model in float64, eager, is what everything is held against."""

import copy
import io
import time

import torch
from torch import nn
from torch.testing import assert_close


def waiting(turn, count: int) -> None:
    """Until so many threads wait for the turn."""
    end = time.monotonic() + 60
    while len(turn._waiting) < count:
        assert time.monotonic() < end, f"{len(turn._waiting)} threads wait, not {count}"
        time.sleep(0.001)


def randn(*shape, seed=0, dtype=torch.float32):
    """Maps with more low frequencies than high ones, so that an energy leaves something out."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def assert_same(run, model, x):
    """run(x) and its gradients, in the map and in the model's parameters, are those of the model in float64.

    `run` holds the model's own parameters, or copies of them, as an exported program does.
    """
    exact, tried = copy.deepcopy(model).double(), x.clone().requires_grad_()
    wanted = x.double().requires_grad_()
    y, expected = run(tried), exact(wanted)
    assert y.dtype == x.dtype
    assert type(y) is torch.Tensor
    parameters = list((run if isinstance(run, torch.nn.Module) else model).parameters())
    grads = torch.autograd.grad(y.square().sum(), [tried, *parameters])
    expected_grads = torch.autograd.grad(expected.square().sum(), [wanted, *exact.parameters()])
    for actual, reference, share in [
        (y, expected, 1e-5),
        *((*pair, 1e-4) for pair in zip(grads, expected_grads, strict=True)),
    ]:
        rms = reference.square().mean().sqrt()
        assert (
            actual.double() - reference
        ).abs().max() <= 10 * share * rms  # float32: its RMS, ten times for the worst


def assert_transforms(model, reference, x):
    """Every transform of torch.func, of a model and of a reference in float64, in the map and in the parameters."""
    torch_func, parameters = torch.func, {name: p.detach() for name, p in model.named_parameters()}

    def of_map(f):
        return lambda x: f(parameters, x)

    def ours(parameters, x):
        return torch_func.functional_call(model, parameters, (x,))

    def loss(f):
        return lambda *arguments: f(*arguments).sin().sum()

    direction = x.cos()
    y, tangent = torch_func.jvp(of_map(ours), (x,), (direction,))
    expected, expected_tangent = torch_func.jvp(of_map(reference), (x,), (direction,))
    assert tangent.abs().max() > 1e-3
    assert_close((y, tangent), (expected, expected_tangent))
    transforms = [
        lambda f: torch_func.vjp(of_map(f), x)[1](torch.ones_like(y))[0],
        lambda f: torch_func.jacfwd(of_map(f))(x),
        lambda f: torch_func.jacrev(of_map(f))(x),
        lambda f: torch_func.hessian(of_map(loss(f)))(x),
        lambda f: torch_func.jacfwd(torch_func.jacfwd(of_map(loss(f))))(x),
        lambda f: torch_func.jacrev(torch_func.jacfwd(of_map(loss(f))))(x),
        lambda f: torch_func.vmap(of_map(f))(x[:, None]),
    ]
    if parameters:
        along = {name: p.cos() for name, p in parameters.items()}
        stacked = {name: torch.stack([p, 2 * p]) for name, p in parameters.items()}
        transforms += [
            lambda f: torch_func.jvp(lambda p: f(p, x), (parameters,), (along,))[1],
            lambda f: torch_func.hessian(loss(f))(parameters, x),
            lambda f: torch_func.vmap(torch_func.grad(loss(f)), in_dims=(None, 0))(parameters, x[:, None]),
            lambda f: torch_func.vmap(f, in_dims=(dict.fromkeys(parameters, 0), None))(stacked, x),
        ]
    for transform in transforms:
        assert_close(transform(ours), transform(reference))


def onnx_by(exporter, model, x, **keywords):
    """What runs the model in onnxruntime, exported by the "dynamo" exporter or by the older one, "trace"."""
    import onnxruntime

    if exporter == "dynamo":
        batch = torch.export.Dim("batch", min=2)
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: batch},), **keywords)
        stored = program.model_proto.SerializeToString()
    else:
        file = io.BytesIO()
        torch.onnx.export(
            model, (x,), file, dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}}, **keywords,
        )  # fmt: skip
        stored = file.getvalue()
    session = onnxruntime.InferenceSession(stored, providers=["CPUExecutionProvider"])

    def run(x):
        outputs = tuple(map(torch.from_numpy, session.run(None, {session.get_inputs()[0].name: x.numpy()})))
        return outputs if len(outputs) > 1 else outputs[0]

    return run


class OfVolumes(nn.Module):
    """Layers of every kind beside each other: of a volume, of its first slice and of that one's first row.

    make  name -> what makes the layer; "series" and "volume" say what it takes, the others take images
    """

    def __init__(self, make):
        super().__init__()
        self.layers = nn.ModuleDict({name: layer() for name, layer in make.items()})

    def forward(self, x):
        taken = {"series": x[:, :, 0, 0], "volume": x}
        return tuple(layer(taken.get(name, x[:, :, 0])) for name, layer in self.layers.items())
