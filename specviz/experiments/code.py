"""A digest of the code that a trial computes with: runs with the same digest may be compared.

Comments, docstrings, annotations, lists of public names and the layout of lines do not count. Nor does code that the
trial cannot reach: a layer that its network does not use may change, and new layers may be added. Nor does the code
that chooses among exact ways to compute the same: trainings choose by the shipped rates, on all machines alike.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from specviz.training import Config

_ROOMS = ("functional", "nn", "models", "training")  # what a training computes with
_USES = {
    "functional": ("functional",),
    "nn": ("functional", "nn"),
    "models": ("functional", "nn", "models"),
    "training": ("functional", "nn", "training"),  # and what builds networks, of which the digest has what is built
}
_CHOICES = ("functional/rates.py", "functional/tuning.py")  # among exact ways: rounding alone, and none in a sweep
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class _Definition:
    """A function, class or value of a module's outermost level, and all names that it uses."""

    room: str
    module: str
    name: str
    text: str
    uses: frozenset[str]
    imports: Mapping[str, str] = field(default_factory=dict, compare=False)  # of its module: name -> from where


def code_of(config: object) -> str:
    """A digest of the code that a trial of this config computes with: 12 hexadecimal digits.

    For a `training.Config`: its network as it is built, all of `training`, and what the two use of functional, nn and
    models, without layers that the network does not have. For any other config, and for a network of your own: all of
    these four rooms.
    """
    definitions = _definitions()
    parts: list[str] = []
    training: Any = sys.modules.get("specviz.training.config")  # slow to import, and whose Config is here has done so
    if training and isinstance(config, training.Config) and ":" not in config.network:
        network = _built(config)
        layers = {base.__name__ for layer in network.modules() for base in type(layer).__mro__}
        definitions, parts = _reached(definitions, layers), _described(network)
    digest = hashlib.blake2b(digest_size=6)
    for line in (*parts, *sorted(f"{each.room} {each.name} {each.text}" for each in definitions)):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _built(config: Config) -> nn.Module:
    import torch

    from specviz import models

    build = getattr(models, config.network)
    sizes = {"image_size": config.side} if config.side and "image_size" in inspect.signature(build).parameters else {}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network: nn.Module = build(**sizes, **config.network_options)
    return network


def _described(network: nn.Module) -> list[str]:
    """A network's structure, and how its parameters begin, in digits that are the same on all machines."""
    starts = (f"{name} {tuple(p.shape)} {p.detach().std(correction=0):.0e}" for name, p in network.named_parameters())
    return [repr(network), *starts]


def _reached(definitions: Sequence[_Definition], layers: Set[str]) -> list[_Definition]:
    """All of training, layers of these names, and what both use: of their own rooms and of those below.

    Functions that build networks are left out: what they build is known.
    """
    by_name: dict[str, list[_Definition]] = {}
    for each in definitions:
        by_name.setdefault(each.name, []).append(each)
    absent = _all_layers() - layers
    new = {each for each in definitions if each.room == "training" or each.name in layers}
    reached = set(new)
    while new:
        new = {found for each in new for name in each.uses - absent for found in _meant(by_name, each, name)} - reached
        reached |= new
    return list(reached)


def _meant(by_name: dict[str, list[_Definition]], user: _Definition, name: str) -> list[_Definition]:
    """What a name may stand for where it is used: what its module imports or, of a private one, has; else any."""
    candidates = [each for each in by_name.get(name, ()) if each.room in _USES[user.room]]
    own = [each for each in candidates if each.module == user.module]
    if name.startswith("_") and (own or name not in user.imports):
        return own
    if (source := user.imports.get(name)) is not None:
        path = source.removeprefix(f"{_PACKAGE.name}.").replace(".", "/")  # a module, or a room or folder of some
        return [*own, *(each for each in candidates if each.module == f"{path}.py" or f"{path}/" in each.module)]
    return [each for each in candidates if each in own or not each.text.startswith("Import")]


@cache
def _all_layers() -> frozenset[str]:
    """The names of all the project's layers."""
    from torch.nn import Module

    def below(kind: type[Any]) -> Iterator[type[Any]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    rooms = tuple(f"{_PACKAGE.name}.{room}." for room in ("nn", "models"))
    return frozenset(each.__name__ for each in below(Module) if each.__module__.startswith(rooms))


@cache
def _definitions() -> list[_Definition]:
    paths = sorted((room, path) for room in _ROOMS for path in (_PACKAGE / room).rglob("*.py"))
    return [
        each
        for room, path in paths
        if (module := path.relative_to(_PACKAGE).as_posix()) not in _CHOICES
        for each in _of_module(room, module, path.read_text("utf-8"))
    ]


@cache
def _of_module(room: str, module: str, text: str) -> list[_Definition]:
    found: list[_Definition] = []
    tree: ast.Module = _Bare().visit(ast.parse(text))
    imports = {
        alias.name: statement.module or ""
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom) and not any(alias.asname for alias in statement.names):
            continue  # what is imported is reached by its own name
        dump, uses = ast.dump(statement), frozenset(_names(statement))
        names = [name for name in _bound(statement) or [Path(module).stem] if name != "__all__"]
        found += [_Definition(room, module, name, dump, uses, imports) for name in names]
    return found


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a statement of a module gives a value."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname for alias in statement.names if alias.asname]
    stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return [node.id for node in stored if isinstance(node.ctx, ast.Store)]


def _names(node: ast.AST) -> set[str]:
    """All names that it uses, but for those that are a function's own: its arguments and what it gives a value."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.alias):
        return {node.name.rpartition(".")[2]}
    found: set[str] = set()
    for each in ast.iter_child_nodes(node):
        found |= _names(each)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        attributes = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        found -= _own(node) - attributes
    elif isinstance(node, ast.Attribute):
        found.add(node.attr)
    return found


def _own(function: ast.AST) -> set[str]:
    arguments = {each.arg for each in ast.walk(function) if isinstance(each, ast.arg)}
    stored = (each for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))
    shared = {name for each in ast.walk(function) if isinstance(each, ast.Global) for name in each.names}
    return (arguments | {each.id for each in stored}) - shared


class _Bare(ast.NodeTransformer):
    """A module without the parts that do not change what it computes."""

    def visit(self, node: ast.AST) -> Any:
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Name("Any", ast.Load())  # a field of a dataclass needs one, whichever
        elif _is_of_types(node):
            return None
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return node


def _is_of_types(node: ast.AST) -> bool:
    """Whether a statement is there for annotations alone."""
    if isinstance(node, ast.ImportFrom):
        return node.module in ("__future__", "typing", "collections.abc")
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
