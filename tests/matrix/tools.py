"""The tools of torch: each runs a subject and raises unless its value and derivatives are right."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import io
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from matrix.case import Case, Oracle, Wrong, as_real, check_plain, curved, first_line, number
from matrix.subjects import Subject


@dataclass(frozen=True)
class Tool:
    """One line of the matrix.

    run       (case) -> None; raises what the tool raises, or `Wrong`
    lacking   why it cannot be asked of a subject, "" where it can
    training  the mode that modules are in
    limit     seconds, after which the cell has failed
    slow      left out of `make test`
    together  run takes all subjects' cases at once and a function that reports each one's error, or None
    networks  run takes the name of one of timm's networks
    needs     packages without which it cannot run
    """

    name: str
    group: str
    run: Callable[..., None]
    lacking: Callable[[Subject], str] = lambda subject: ""
    training: bool = False
    limit: float = 120
    slow: bool = False
    together: bool = False
    networks: bool = False
    needs: tuple[str, ...] = ()

    def missing(self) -> str:
        """The packages that it needs and that are not installed."""
        return ", ".join(name for name in self.needs if importlib.util.find_spec(name) is None)


TOOLS: dict[str, Tool] = {}


def tool(name: str, group: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(run: Callable[..., None]) -> Callable[..., None]:
        TOOLS[name] = Tool(name, group, run, **settings)
        return run

    return register


# --- Why a tool cannot be asked of a subject


def _parameters(subject: Subject) -> list[str]:
    return [name for name, _ in Case(subject).module().named_parameters()]


def _no_parameters(subject: Subject) -> str:
    return "" if _parameters(subject) else "has no parameters"


def _no_layer(subject: Subject) -> str:
    return "" if subject.layer else "is no layer"


def _no_maps(subject: Subject) -> str:
    if subject.family in ("spectra", "SpecNet"):
        return "gives a spectrum, which has no memory format"
    if len(subject.shape) != 4 or not subject.maps:
        return "takes no maps (B, C, H, W)"
    y = Case(subject).module()(Case(subject).x())
    return "" if y.ndim == 4 and not y.is_complex() else "gives no maps (B, C, H, W)"


def _deep(subject: Subject) -> str:
    return "is a deep network, of layers that are asked" if subject.deep else ""


def _one_size(subject: Subject) -> str:
    return "" if subject.other_size else "takes one size only"


def _outside_autograd(subject: Subject) -> str:
    return "" if subject.differentiable else "takes no part in autograd"


def _draws(subject: Subject) -> str:
    return _outside_autograd(subject) or ("draws anew at each call" if subject.draws else "")


# --- Plain use


@tool("eager", "eager")
def eager(case: Case) -> None:
    """float32 against float64, and float64's gradients against its differences."""
    y = case.check_module(case.module())
    if not case.subject.differentiable:
        return
    x = case.x()
    oracle = case.oracle(x, y)
    along = case.direction(oracle.module)
    gradients = oracle.gradients(x, number)
    by_gradients = sum((gradients[name] * along[name]).sum() for name in gradients)
    by_differences = number(oracle.tangent(x, along))
    size = torch.stack([(gradients[name] * along[name]).norm() for name in gradients]).norm()
    if not abs(by_gradients - by_differences) <= 1e-6 * size:
        raise Wrong(f"float64's gradients say {by_gradients:.6g} where its differences say {by_differences:.6g}")


# --- Compilers


def _compiled(case: Case, **options: Any) -> None:
    module = case.module()
    compiled = torch.compile(module, fullgraph=True, **options)
    case.check(compiled, dict(module.named_parameters()))
    if options.get("dynamic"):
        module.zero_grad()
        case.check(compiled, dict(module.named_parameters()), x=case.x(batch=case.subject.shape[0] + 1))
        if case.subject.other_size:
            module.zero_grad()
            case.check(compiled, dict(module.named_parameters()), x=case.x(other=True))
    case.check_eager_again()


@tool("compile, aot_eager", "torch.compile", limit=300, training=True)
def compile_aot_eager(case: Case) -> None:
    _compiled(case, backend="aot_eager")


@tool("compile, inductor", "torch.compile", limit=300, training=True, slow=True, lacking=_deep)
def compile_inductor(case: Case) -> None:
    _compiled(case, backend="inductor")


@tool("compile, dynamic", "torch.compile", limit=300, lacking=_deep)
def compile_dynamic(case: Case) -> None:
    _compiled(case, backend="aot_eager", dynamic=True)


def _exported(case: Case, *, strict: bool, axes: tuple[int, ...] = ()) -> None:
    module, x = case.module(), case.x()
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in axes}
    program = torch.export.export(module, (x,), dynamic_shapes=(dynamic,) if axes else None, strict=strict)
    exported = program.module()
    own = dict(exported.named_parameters())
    leaves = {name: own[name] for name, _ in module.named_parameters()}
    case.check(exported, leaves)
    if 0 in axes:
        case.check(exported, leaves, x=case.x(batch=case.subject.shape[0] + 3))
    elif axes:
        case.check(exported, leaves, x=case.x(other=True))
    case.check_eager_again()


@tool("export, strict", "torch.export", limit=300, lacking=_deep)
def export_strict(case: Case) -> None:
    _exported(case, strict=True)


@tool("export, non-strict", "torch.export", limit=300)
def export_non_strict(case: Case) -> None:
    _exported(case, strict=False)
    _exported(case, strict=False)  # now that eager has filled the caches


@tool("export, dynamic batch", "torch.export", limit=300)
def export_dynamic_batch(case: Case) -> None:
    _exported(case, strict=False, axes=(0,))


@tool("export, strict, dynamic batch", "torch.export", limit=300, lacking=_deep)
def export_strict_dynamic_batch(case: Case) -> None:
    _exported(case, strict=True, axes=(0,))


def _size_axes(case: Case) -> tuple[int, ...]:
    n = len(case.subject.shape)
    return tuple(range(n - len(case.subject.other_size), n))


@tool("export, dynamic size", "torch.export", limit=300, lacking=_one_size)
def export_dynamic_size(case: Case) -> None:
    _exported(case, strict=False, axes=_size_axes(case))


@tool("export, strict, dynamic size", "torch.export", limit=300, lacking=_one_size)
def export_strict_dynamic_size(case: Case) -> None:
    _exported(case, strict=True, axes=_size_axes(case))


# --- Tracers


@tool("make_fx, fake", "tracing")
def make_fx_fake(case: Case) -> None:
    _made_by_make_fx(case)
    _made_by_make_fx(case)  # now that eager has filled the caches


def _made_by_make_fx(case: Case) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    module, x = case.module(), case.x()
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def step(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        x = x.detach().requires_grad_()
        y = functional_call(module, (leaves, buffers), (x,))
        if not case.subject.differentiable:
            return y, []
        return y, list(torch.autograd.grad(number(y), [x, *leaves.values()]))

    graph = make_fx(step, tracing_mode="fake")(parameters, buffers, x)
    y, gradients = graph(parameters, buffers, x)
    check_plain(y)
    oracle = case.oracle(x, y)
    case.near("value", y, oracle.value(x), torch.float32)
    if case.subject.differentiable:
        grads = dict(zip(["x", *parameters], gradients, strict=True))
        case.near_all("gradient", grads, oracle.gradients(x, number), torch.float32)
    case.check_eager_again()


@tool("FakeTensorMode", "tracing")
def fake_tensor_mode(case: Case) -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    module = case.module()
    # With symbols, as torch.export's mode: what a threshold keeps has a size that nobody knows.
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()) as mode:
        x = mode.from_tensor(case.x(), static_shapes=True).requires_grad_()
        y = module(x)
        if not isinstance(y, FakeTensor):
            raise Wrong(f"the result is a {type(y).__name__}")
        if case.subject.differentiable:
            number(y).backward()
    again = case.check_module(case.module())
    if (y.shape, y.dtype) != (again.shape, again.dtype):
        raise Wrong(f"a fake {tuple(y.shape)} {y.dtype} for {tuple(again.shape)} {again.dtype}")


@tool("jit.trace", "tracing", lacking=_draws)
def jit_trace(case: Case) -> None:
    module = case.module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of every shape that becomes a constant, which is what tracing is
        traced = torch.jit.trace(module, (case.x(),))
    leaves = dict(traced.named_parameters())
    case.check(traced, {name: leaves[name] for name, _ in module.named_parameters()})
    case.check(traced, {name: leaves[name] for name, _ in module.named_parameters()}, x=case.x(seed=7))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    case.near("value", torch.jit.load(file)(case.x()), _oracle(case).value(case.x()), torch.float32)
    case.check_eager_again()


class _Around(nn.Module):
    """A model that contains the subject: a gain for each channel, then the subject."""

    def __init__(self, inner: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, x.shape[1]).reshape(-1, *[1] * (x.ndim - 2)))
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x * self.gain)

    def right(self, oracle: Oracle, x: Tensor) -> dict[str, Tensor]:
        """The gradients by all parameters, from the subject's own."""
        gain = self.gain.detach().double()
        found = oracle.gradients(x.double() * gain, number)
        by_gain = (found.pop("x") * x.double()).flatten(2).sum((0, 2)).reshape(gain.shape)
        return {"gain": by_gain, **{f"inner.{name}": gradient for name, gradient in found.items()}}


@tool("fx.symbolic_trace", "tracing", lacking=_draws)
def symbolic_trace(case: Case) -> None:
    around = _Around(case.module(), case.x())
    traced = torch.fx.symbolic_trace(around)
    for x in [case.x(), *([case.x(other=True)] if case.subject.other_size else [])]:
        traced.zero_grad()
        y = traced(x)
        check_plain(y)
        oracle = case.oracle(x, y.detach())
        case.near("value", y, oracle.value(x * around.gain.detach().double()), torch.float32)
        if case.subject.differentiable:
            number(y).backward()
            grads: dict[str, Any] = {name: p.grad for name, p in traced.named_parameters()}
            case.near_all("gradient", grads, around.right(oracle, x), torch.float32)
    case.check_eager_again()


@tool("ONNX", "tracing", lacking=_draws, needs=("onnx", "onnxscript", "onnxruntime"), limit=180)
def onnx(case: Case) -> None:
    import onnxruntime  # type: ignore[import-not-found]

    module, x = case.module(), case.x()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of what torch will deprecate
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for numbers in (x, case.x(seed=7)):
        (y,) = session.run(None, {session.get_inputs()[0].name: numbers.numpy()})
        case.near("value", torch.from_numpy(y), _oracle(case).value(numbers), torch.float32)
    case.check_eager_again()


# --- torch.func


def _pure(case: Case) -> tuple[nn.Module, dict[str, Tensor], Tensor, Callable[..., Tensor]]:
    """A module, its parameters, its input, and the function of both that it is."""
    module = case.module()
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    return module, parameters, case.x(), lambda parameters, x: functional_call(module, parameters, (x,))


def _oracle(case: Case) -> Oracle:
    """What is right, of a subject that draws nothing."""
    return case.oracle(case.x(), torch.zeros(()))


def _near_gradients(case: Case, gradients: Any, right: dict[str, Tensor]) -> None:
    by_parameters, by_x = gradients
    case.near_all("gradient", {"x": by_x, **by_parameters}, right, torch.float32)


@tool("func.grad", "torch.func", lacking=_draws)
def func_grad(case: Case) -> None:
    _, parameters, x, f = _pure(case)
    gradients = torch.func.grad(lambda p, x: number(f(p, x)), argnums=(0, 1))(parameters, x)
    _near_gradients(case, gradients, _oracle(case).gradients(x, number))
    case.check_eager_again()


@tool("func.vjp", "torch.func", lacking=_draws)
def func_vjp(case: Case) -> None:
    _, parameters, x, f = _pure(case)
    y, back = torch.func.vjp(f, parameters, x)
    oracle = _oracle(case)
    case.near("value", y, oracle.value(x), torch.float32)
    z = y.detach().clone().requires_grad_()
    number(z).backward()
    _near_gradients(case, back(z.grad), oracle.gradients(x, number))
    case.check_eager_again()


@tool("func.jvp", "torch.func", lacking=_draws)
def func_jvp(case: Case) -> None:
    module, parameters, x, f = _pure(case)
    along = case.direction(module)
    # By x alone too, where nothing requires a gradient: an operator without a forward mode drops the tangent there.
    y, tangent = torch.func.jvp(lambda x: f(parameters, x), (x,), (along["x"],))
    oracle = _oracle(case)
    case.near("value", y, oracle.value(x), torch.float32)
    right = oracle.tangent(x, {"x": along["x"]})
    case.near("tangent along x", tangent, right, torch.float32)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(case.x().requires_grad_(), along["x"])
        out = torch.autograd.forward_ad.unpack_dual(f(parameters, dual))
    if out.tangent is None:
        raise Wrong("a dual number's tangent is dropped")
    case.near("tangent of a dual number", out.tangent, right, torch.float32)
    y, tangent = torch.func.jvp(f, (parameters, x), ({name: along[name] for name in parameters}, along["x"]))
    case.near("tangent", tangent, oracle.tangent(x, along), torch.float32)
    case.check_eager_again()


_STEPS = 3  # directions in which Jacobians and Hessians are taken


def _along_directions(case: Case) -> tuple[Callable[[Tensor], Tensor], list[dict[str, Tensor]]]:
    """t -> the value at input and parameters moved by t along directions: Jacobians by t are small for any network."""
    module, parameters, x, f = _pure(case)
    ways = [case.direction(module, seed=10 + i) for i in range(_STEPS)]
    tensors = {"x": x, **parameters}

    def moved(t: Tensor) -> Tensor:
        at = {name: value + sum(t[i] * way[name] for i, way in enumerate(ways)) for name, value in tensors.items()}
        return as_real(f({name: at[name] for name in parameters}, at["x"]))

    return moved, ways


def _jacobian(case: Case, transform: Callable[..., Any]) -> None:
    moved, ways = _along_directions(case)
    jacobian = transform(moved)(torch.zeros(_STEPS))
    oracle, x = _oracle(case), case.x()
    for i, way in enumerate(ways):
        case.near("Jacobian", jacobian[..., i], as_real(oracle.tangent(x, way)), torch.float32)
    _, parameters, x, f = _pure(case)
    if len(parameters) <= 3:  # the whole Jacobian of a layer, by one sample
        whole = transform(lambda x: as_real(f(parameters, x)))(x[:1])
        for way in ways:
            along = way["x"][:1]
            right = as_real(oracle.tangent(x[:1], {"x": along}))
            case.near("Jacobian by x", torch.tensordot(whole, along, x.ndim), right, torch.float32)
    case.check_eager_again()


@tool("func.jacrev", "torch.func", lacking=_draws)
def func_jacrev(case: Case) -> None:
    _jacobian(case, torch.func.jacrev)


@tool("func.jacfwd", "torch.func", lacking=_draws)
def func_jacfwd(case: Case) -> None:
    _jacobian(case, torch.func.jacfwd)


@tool("func.hessian", "torch.func", lacking=_draws)
def func_hessian(case: Case) -> None:
    moved, ways = _along_directions(case)
    hessian = torch.func.hessian(lambda t: curved(moved(t)))(torch.zeros(_STEPS))
    oracle, x = _oracle(case), case.x()
    right = torch.empty(_STEPS, _STEPS, dtype=torch.float64)
    for j, way in enumerate(ways):
        bend = oracle.bend(x, curved, way)
        for i, other in enumerate(ways):
            right[i, j] = sum((bend[name] * other[name]).sum() for name in bend)
    case.near("Hessian", hessian, right, torch.float32)
    case.check_eager_again()


@tool("func.vmap", "torch.func", lacking=_draws)
def func_vmap(case: Case) -> None:
    """Over inputs, over parameters, and over both with gradients: the step of an ensemble."""
    _, parameters, _, f = _pure(case)
    xs = torch.stack([case.x(seed=20 + i) for i in range(3)])
    ensemble = {name: torch.stack([p * (1 + 0.01 * i) for i in range(3)]) for name, p in parameters.items()}
    by_inputs = torch.func.vmap(lambda x: f(parameters, x))(xs)
    oracle = _oracle(case)
    for x, y in zip(xs, by_inputs, strict=True):
        case.near("value", y, oracle.value(x), torch.float32)
    members = [{name: p[i].double() for name, p in ensemble.items()} for i in range(3)]
    if ensemble:
        by_members = torch.func.vmap(f, in_dims=(0, None))(ensemble, xs[0])
        for member, y in zip(members, by_members, strict=True):
            case.near("value", y, oracle.value(xs[0], member), torch.float32)
    if case.subject.differentiable:
        step = torch.func.grad(lambda x, p: number(f(p, x)), argnums=(0, 1))
        by_x, by_parameters = torch.func.vmap(step, in_dims=(0, 0 if ensemble else None))(xs, ensemble)
        for i, (x, member) in enumerate(zip(xs, members, strict=True)):
            got = {"x": by_x[i], **{name: g[i] for name, g in by_parameters.items()}}
            case.near_all("gradient", got, oracle.gradients(x, number, member), torch.float32)
    case.check_eager_again()


@tool("per-sample gradients", "torch.func", lacking=lambda s: _draws(s) or _no_parameters(s))
def per_sample_gradients(case: Case) -> None:
    _, parameters, x, f = _pure(case)
    step = torch.func.grad(lambda parameters, sample: number(f(parameters, sample[None])))
    gradients = torch.func.vmap(step, in_dims=(None, 0))(parameters, x)
    oracle = _oracle(case)
    for i in range(len(x)):
        right = oracle.gradients(x[i : i + 1], number)
        right.pop("x")
        case.near_all("gradient", {name: g[i] for name, g in gradients.items()}, right, torch.float32)
    case.check_eager_again()


# --- Modules


@tool("functional_call", "modules", lacking=_no_parameters, training=True)
def call_with_other_parameters(case: Case) -> None:
    module = case.module()
    other = {name: (p.detach() * 1.1 + 0.01).requires_grad_() for name, p in module.named_parameters()}
    case.check(lambda x: functional_call(module, other, (x,)), other, at={n: p.double() for n, p in other.items()})
    case.check_module(module)


@tool("skip_init", "modules", lacking=lambda s: _no_layer(s) or _no_parameters(s))
def skip_init(case: Case) -> None:
    """Of layers with parameters: what has none has nothing to skip, and takes no device, as torch's own pooling."""
    make: Any = case.subject.layer
    layer = torch.nn.utils.skip_init(make.func, *make.args, **make.keywords)
    _like_the_layer(case, layer)


@tool("signature", "modules", lacking=_no_layer)
def signature(case: Case) -> None:
    """It names the arguments: those of torch's own class, where it is one of its subclasses, and what is passed."""
    make: Any = case.subject.layer
    parameters = inspect.signature(make.func).parameters
    if vague := [name for name, p in parameters.items() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]:
        raise Wrong(f"its arguments are hidden behind {', '.join(vague)}")
    for sibling in (nn.Conv1d, nn.Conv2d):
        if issubclass(make.func, sibling):
            own = inspect.signature(sibling).parameters
            if list(parameters)[: len(own)] != list(own):
                raise Wrong(
                    f"its first arguments are not {sibling.__name__}'s: {', '.join(list(parameters)[: len(own)])}"
                )
            if unlike := [name for name in own if parameters[name].default != own[name].default]:
                raise Wrong(f"defaults unlike {sibling.__name__}'s: {', '.join(unlike)}")
    inspect.signature(make.func).bind(*make.args, **make.keywords)


def _like_the_layer(case: Case, layer: nn.Module) -> None:
    """A layer whose numbers are those of the subject's module, once they are loaded, does the same."""
    module = case.module()
    make: Any = case.subject.layer
    (inner,) = [m for m in module.modules() if isinstance(m, make.func)]
    if {n: (t.shape, t.dtype) for n, t in layer.state_dict().items()} != {
        n: (t.shape, t.dtype) for n, t in inner.state_dict().items()
    }:
        raise Wrong("its state_dict has other names, shapes or types")
    layer.load_state_dict(inner.state_dict())
    layer.train(case.training)
    if inner is module:
        module = layer
    else:
        (parent, name), *_ = [(m, n) for m in module.modules() for n, child in m.named_children() if child is inner]
        setattr(parent, name, layer)
    case.check_module(module)


@tool("channels_last", "modules", lacking=_no_maps)
def channels_last(case: Case) -> None:
    module = case.module().to(memory_format=torch.channels_last)
    y = case.check_module(module, x=case.x().contiguous(memory_format=torch.channels_last))
    if not y.is_contiguous(memory_format=torch.channels_last):
        raise Wrong("channels_last comes out as another layout")
    y = case.check_module(case.module())
    if not y.is_contiguous():
        raise Wrong("a contiguous map comes out as another layout")


@tool("deepcopy", "modules", training=True)
def deepcopy(case: Case) -> None:
    module = case.module()
    case.check_module(module)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    case.check_module(twin)


@tool("pickle", "modules", training=True)
def pickled(case: Case) -> None:
    module = case.module()
    case.check_module(module)
    case.check_module(pickle.loads(pickle.dumps(module)))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    case.check_module(torch.load(file, weights_only=False))
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = case.module()
    with torch.no_grad():
        for p in fresh.parameters():
            p.fill_(0.5)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    case.check_module(fresh)


@tool("EMA", "modules", lacking=_no_parameters)
def averaged(case: Case) -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    module = case.module()
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    average.update_parameters(module)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1.2).add_(0.01)
    average.update_parameters(module)
    at = {name: 0.5 * start[name].double() + 0.5 * p.detach().double() for name, p in module.named_parameters()}
    average.train(case.training)
    leaves = {name.removeprefix("module."): p for name, p in average.named_parameters()}
    case.check(average, leaves, at=at)


class _Halved(nn.Module):
    def forward(self, original: Tensor) -> Tensor:
        return original / 2


@tool("parametrizations", "modules", lacking=_no_parameters, training=True)
def parametrizations(case: Case) -> None:
    """A parametrisation of every parameter, torch's weight_norm of every filter, and both taken off again."""
    from torch.nn.utils import parametrize
    from torch.nn.utils.parametrizations import weight_norm

    module = case.module()
    owners = [
        (m, name) for m in module.modules() for name, p in list(m.named_parameters(recurse=False)) if p is not None
    ]
    at = {name: p.detach().double() / 2 for name, p in module.named_parameters()}
    for owner, name in owners:
        parametrize.register_parametrization(owner, name, _Halved())
    y = module(case.x())
    check_plain(y)
    oracle = case.oracle(case.x(), y.detach())
    case.near("value", y, oracle.value(case.x(), at), torch.float32)
    number(y).backward()
    right = oracle.gradients(case.x(), number, at)
    right.pop("x")
    grads = {
        name.replace("parametrizations.", "").removesuffix(".original"): p.grad for name, p in module.named_parameters()
    }
    case.near_all("gradient", grads, {name: g / 2 for name, g in right.items()}, torch.float32)
    for owner, name in owners:
        parametrize.remove_parametrizations(owner, name)
    case.check_module(module, at=at)
    module = case.module()
    for owner in list(module.modules()):
        for name in [name for name, p in owner.named_parameters(recurse=False) if p.ndim > 1]:
            weight_norm(owner, name)
    case.near("value", module(case.x()), case.oracle(case.x(), y.detach()).value(case.x()), torch.float32)


@tool("meta device", "modules", training=True)
def meta_device(case: Case) -> None:
    module = case.module().to("meta")
    x = case.x().to("meta").requires_grad_()
    y = module(x)
    if not y.is_meta:
        raise Wrong("the result is not on the meta device")
    if case.subject.differentiable:
        number(y).backward()
        if x.grad is None or x.grad.shape != x.shape or not x.grad.is_meta:
            raise Wrong("there is no gradient of x on the meta device")
    again = case.check_module(case.module())
    if (y.shape, y.dtype) != (again.shape, again.dtype):
        raise Wrong(f"{tuple(y.shape)} {y.dtype} on the meta device, {tuple(again.shape)} {again.dtype} elsewhere")
    if case.subject.layer:
        layer = case.subject.layer(device="meta") if list(case.module().parameters()) else case.subject.layer()
        if not all(t.is_meta for t in layer.state_dict().values()):
            raise Wrong("device='meta' makes parameters elsewhere")
        _like_the_layer(case, layer.to_empty(device="cpu"))


# --- Precision


@tool("float16", "precision")
def float16(case: Case) -> None:
    case.check_module(case.module(torch.float16), x=case.x(torch.float16))


@tool("bfloat16", "precision")
def bfloat16(case: Case) -> None:
    case.check_module(case.module(torch.bfloat16), x=case.x(torch.bfloat16))


def _autocast(case: Case, dtype: torch.dtype) -> None:
    module = case.module()

    def call(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return module(x)

    case.check(call, dict(module.named_parameters()), rounding=dtype)


@tool("autocast, float16", "precision", training=True)
def autocast_float16(case: Case) -> None:
    _autocast(case, torch.float16)


@tool("autocast, bfloat16", "precision", training=True)
def autocast_bfloat16(case: Case) -> None:
    _autocast(case, torch.bfloat16)


@tool("GradScaler", "precision", lacking=lambda s: _no_parameters(s) or _outside_autograd(s), training=True)
def grad_scaler(case: Case) -> None:
    """A step of SGD under autocast, its loss scaled."""
    module, x = case.module(), case.x()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimiser, scaler = torch.optim.SGD(module.parameters(), lr=0.125), torch.amp.GradScaler("cpu", init_scale=64.0)
    with torch.autocast("cpu", torch.float16):
        y = module(x)
    oracle = case.oracle(x, y.detach())
    scaler.scale(number(y if y.is_complex() else y.float())).backward()
    scaler.unscale_(optimiser)
    scaler.step(optimiser)
    scaler.update()
    right = oracle.gradients(x, number)
    right.pop("x")
    steps = {name: (before[name] - p.detach()) * 8 for name, p in module.named_parameters()}
    case.near_all("step", steps, right, torch.float16)


# --- Several processes


@tool("DDP", "several processes", together=True, training=True, lacking=_draws, limit=150)
def data_parallel(cases: list[Case], report: Callable[[Case, BaseException | None], None]) -> None:
    """Two processes, gloo, half of a batch each: both must end with the mean of their gradients."""
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        rank = 0 if child else 1
        try:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
            for case in cases:
                error: BaseException | None = None
                try:
                    _one_of_two(case, rank)
                except Exception as raised:
                    error = raised
                errors: list[Any] = [None, None]
                own_error = None if error is None else f"{type(error).__name__}: {first_line(error)}"
                dist.all_gather_object(errors, own_error)
                if rank == 0:
                    report(case, error or (Wrong(f"the other process: {errors[1]}") if errors[1] else None))
            dist.destroy_process_group()
        finally:
            if rank == 1:
                os._exit(0)
        os.waitpid(child, 0)


def _one_of_two(case: Case, rank: int) -> None:
    from torch.nn.parallel import DistributedDataParallel

    halves = case.x().chunk(2)
    around = _Around(case.module(), halves[0])
    parallel = DistributedDataParallel(around)
    for _ in range(2):  # the second pass finds parameters that the first one never reached
        parallel.zero_grad()
        y = parallel(halves[rank])
        number(y).backward()
    oracle = case.oracle(halves[0], y.detach())
    first, second = (around.right(oracle, half) for half in halves)
    right = {name: (first[name] + second[name]) / 2 for name in first}
    case.near_all("gradient", {name: p.grad for name, p in around.named_parameters()}, right, torch.float32)
