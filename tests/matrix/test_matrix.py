"""A core of the matrix: every subject, every tool, and every family of subjects with every group of tools.

The whole, with inductor and timm's networks, is `make matrix`.
"""

import os
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import specviz as sv
from matrix.case import Case, Wrong
from matrix.cells import FAILS, REFUSED, WORKS, all_cells, judged
from matrix.refused import REFUSED as REFUSALS
from matrix.refused import refusal_of
from matrix.subjects import LEFT_OUT, SUBJECTS, Subject
from matrix.tools import TOOLS
from matrix.zygote import ROOT, Zygote

SOURCES = [*ROOT.glob("specviz/**/*.py"), *ROOT.glob("kernels/**/*.py")]
# Of networks, whole cells take seconds: the core takes the small ones, and the others in eager alone.
LIGHT = {"models.lenet, band-limited", "models.lenet, specnet", "models.fcn", "models.wood_larson, gaussian"}
INDUCTOR = "SpectralPool2d"  # the one subject that the core compiles with inductor
# Cells of these take seconds: a family meets every second, or sixth, tool of the group, shifted by so many.
EVERY = {"torch.compile": (2, 0), "torch.export": (6, 2)}
# Cells of their own: all that inductor makes, and one that failed when a tuple of sizes held a symbol.
BESIDES = [
    ("compile, inductor", INDUCTOR),
    ("export, strict, dynamic size", "SF.filters_from_parameters"),
]
# What a cell of these leaves in a cache could hide what the next one would leave there: each has a process of its own.
ALONE = ("torch.compile", "torch.export", "tracing")


def core() -> list[tuple[str, list[str]]]:
    """(tool, subjects of one process): families meet tools in turns, and the subjects of a family take turns."""
    families = defaultdict(list)
    for subject in SUBJECTS.values():
        if subject.family != "torch's own" and (subject.family != "models" or subject.name in LIGHT):
            families[subject.family].append(subject.name)
    found = []
    for turn, tool in enumerate(quick_tools(), 1):
        every, by = (3, 0) if tool == "ONNX" else EVERY.get(TOOLS[tool].group, (1, 0))
        chosen = [names[turn % len(names)] for i, names in enumerate(families.values()) if (i + turn + by) % every == 0]
        chosen = chosen[turn % len(chosen) :] + chosen[: turn % len(chosen)]  # the first finds empty caches
        if tool == "eager":
            chosen = list(SUBJECTS)
        found += [(tool, [name]) for name in chosen] if TOOLS[tool].group in ALONE else [(tool, chosen)]
    return [*found, *((tool, [name]) for tool, name in BESIDES)]


def quick_tools() -> list[str]:
    return [tool.name for tool in TOOLS.values() if not tool.slow]


OWN_TOOLS = """
import os, time
from matrix.tools import tool

@tool("crash", "own")
def crash(case):
    os.abort()

@tool("hang", "own", limit=1)
def hang(case):
    time.sleep(60)

@tool("crash together", "own", together=True)
def crash_together(cases, report):
    for case in cases:
        if case.subject.name == "nn.Conv2d":
            os.abort()
        report(case, None)
"""


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    """One for all tests, since it takes seconds to start; with tools that end badly."""
    folder = tmp_path_factory.mktemp("tools")
    (folder / "own_tools.py").write_text(OWN_TOOLS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        started = Zygote("own_tools")
    with started:
        yield started


@pytest.mark.parametrize(("tool", "subjects"), core(), ids=lambda part: part if isinstance(part, str) else part[0])
def test_a_subject_works_under_a_tool_or_is_refused_as_the_docs_say(zygote, tool, subjects):
    cells = list(zygote.run(subjects, tool))
    assert sorted(cell.subject for cell in cells) == sorted(subjects)
    assert not [f"{cell.subject}: {cell.detail}" for cell in cells if cell.outcome == FAILS]


def test_the_core_has_every_subject_every_tool_and_every_family_with_every_group_of_tools():
    cells = {(subject, tool) for tool, subjects in core() for subject in subjects}
    assert {subject for subject, _ in cells} == set(SUBJECTS)
    assert {tool for _, tool in cells} == {*quick_tools(), "compile, inductor"}
    families = {subject.family for subject in SUBJECTS.values()} - {"torch's own"}
    groups = {TOOLS[tool].group for tool in quick_tools()}
    met = {(SUBJECTS[subject].family, TOOLS[tool].group) for subject, tool in cells}
    assert met >= {(family, group) for family in families for group in groups}
    simple = [tool for tool in quick_tools() if TOOLS[tool].group not in EVERY and tool != "ONNX"]
    assert {(SUBJECTS[s].family, tool) for s, tool in cells} >= {(f, tool) for f in families for tool in simple}


def public_names() -> set[str]:
    modules = {"nn": sv.nn, "functional": sv.functional, "memory": sv.memory, "models": sv.models}
    spectrum = {name for name in dir(sv.HalfSpectrum) if not name.startswith("_")} - {"values", "size", "norm"}
    return {
        *(f"{module}.{name}" for module, m in modules.items() for name in m.__all__),
        *(f"spectra.HalfSpectrum.{name}" for name in spectrum),
        "spectra.HalfSpectrum",
    }


def test_every_public_name_is_a_subject_or_left_out_for_a_reason():
    tried = {name for subject in SUBJECTS.values() for name in subject.covers}
    assert tried | LEFT_OUT.keys() == public_names()
    assert not tried & LEFT_OUT.keys()
    assert all(LEFT_OUT.values())


# --- The harness sees what is wrong


class Without(torch.autograd.Function):
    """The identity without forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad

    @staticmethod
    def jvp(ctx, tangent):
        return torch.zeros_like(tangent)


class NoTangent(nn.Module):
    def forward(self, x):
        return Without.apply(x)


class Keeping(nn.Module):
    """Keeps the first tensor that it makes, whoever made it."""

    kept = None

    def forward(self, x):
        if Keeping.kept is None:
            Keeping.kept = torch.ones_like(x[0])
        return x * Keeping.kept.to(x.dtype)


def own_case(build):
    return Case(Subject("a lie", "torch's own", build, (2, 3, 4, 4), ()))


def test_a_wrong_value_and_a_wrong_gradient_are_seen():
    case = Case(SUBJECTS["nn.Conv2d"])
    module = case.module()
    leaves = dict(module.named_parameters())
    case.check(module, leaves)
    with pytest.raises(Wrong, match="value is off"):
        case.check(lambda x: module(x) * 1.0001, leaves)
    with pytest.raises(Wrong, match="gradient of x is off"):
        case.check(lambda x: module(x) + 0.001 * (module(x) - module(x).detach()), leaves)
    with pytest.raises(Wrong, match="does not require a gradient"):
        case.check(lambda x: module(x).detach(), leaves)
    with pytest.raises(Wrong, match="gradient of bias is off"):
        case.check(lambda x: F.conv2d(x, module.weight, module.bias.detach(), padding=1), leaves)


def test_a_tangent_that_is_silently_zero_is_seen():
    with pytest.raises(Wrong, match="tangent along x is off"):
        TOOLS["func.jvp"].run(own_case(NoTangent))


def test_a_fake_tensor_left_in_a_cache_is_seen():
    with pytest.raises(Wrong, match="FakeTensor"):
        TOOLS["FakeTensorMode"].run(own_case(Keeping))


def test_a_refusal_counts_only_where_it_is_listed_and_only_in_its_own_words():
    assert judged("nn.Conv2d", "eager", ValueError("use something else"), 0).outcome == FAILS
    assert judged("nn.Conv2d", "eager", None, 0).outcome == WORKS
    for refusal in REFUSALS:
        subject, tool = next((s, t) for s, t in all_cells() if refusal.covers(s, t))
        assert judged(subject, tool, ValueError(f"{refusal.says}."), 0).outcome == REFUSED
        assert judged(subject, tool, ValueError("no"), 0).outcome == FAILS
        assert judged(subject, tool, Wrong(refusal.says), 0).outcome == FAILS
        assert judged(subject, tool, None, 0).outcome == FAILS


def test_a_crash_and_a_hang_end_their_own_cell_alone(zygote):
    (crashed,) = zygote.run(["nn.Conv2d"], "crash")
    (hung,) = zygote.run(["nn.Conv2d"], "hang")
    several = list(zygote.run(["a small network", "nn.Conv2d", "SpectralPool2d"], "crash together"))
    (fine,) = zygote.run(["nn.Conv2d"], "eager")
    assert "SIGABRT" in crashed.detail
    assert hung.detail == "no end in 1 s"
    assert [cell.outcome for cell in (crashed, hung, *several, fine)] == [FAILS, FAILS, WORKS, FAILS, WORKS, WORKS]


def test_every_refusal_has_a_reason_and_words_that_the_source_says():
    source = "".join(path.read_text("utf-8") for path in SOURCES)
    texts = "".join(line.strip().removeprefix("f").strip('"') for line in source.splitlines())
    for refusal in REFUSALS:
        assert refusal.reason.endswith(".")
        assert refusal.says in texts, refusal.says
        assert any(refusal.covers(subject, tool) for subject, tool in all_cells()), refusal
    for subject, tool in all_cells():
        refusal_of(subject, tool)  # raises where two speak of one cell
