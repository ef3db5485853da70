"""Names in code are the glossary's, in the section Words of CONTRIBUTING.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
VAGUE = {"told", "said", "there", "here", "what", "mine", "of"}
# Callers know these, and saved programs the arguments of operators: (file, where it is bound, name).
PUBLIC = {
    ("specviz/functional/band_limited/transforms.py", "_analyse", "of"),
    ("specviz/functional/band_limited/transforms.py", "_synthesise", "of"),
    ("specviz/nn/spectralize.py", "Report", "what"),
    ("specviz/widgets/speed.py", "compute", "what"),  # a control's name
}


def bindings(node: ast.AST, where: str = "") -> Iterator[tuple[str, str]]:
    """(Function or class, name) of each variable, parameter and attribute bound, and each nested function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield where, child.id
        elif isinstance(child, ast.arg):
            yield where, child.arg
        elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
            yield where, child.attr
        elif isinstance(child, ast.ExceptHandler | ast.alias):
            yield where, (child.name if isinstance(child, ast.ExceptHandler) else child.asname) or ""
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not isinstance(node, ast.ClassDef):  # `Paired.of(...)` reads well
                yield where, child.name
            yield from bindings(child, child.name)
        else:
            yield from bindings(child, where)


def test_no_name_is_vague():
    found = {
        (path.relative_to(ROOT).as_posix(), where, name)
        for folder in ("kernels", "specviz", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for where, name in bindings(ast.parse(path.read_text()))
        if name in VAGUE
    }
    assert found == PUBLIC
