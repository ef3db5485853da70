"""Two explorers in one kernel whose callbacks JupyterLab delivers on two threads; a page that outlives its kernel."""

import ast

import pytest
from pages import in_kernel, open_cells, shown_facts, wait_until

pytestmark = pytest.mark.browser

# Which threads computed, and how many at once; each explorer has a network of its own, small, so that a step is quick.
BEGIN = """
import threading
import torch
from torch import nn
import specviz as sv

threads, inside, most = set(), 0, 0


def watched(measure):
    def measured(self, *arguments, **values):
        global inside, most
        threads.add(threading.get_ident())
        inside += 1
        most = max(most, inside)
        try:
            return measure(self, *arguments, **values)
        finally:
            inside -= 1
    return measured


sv.widgets.StepExplorer.compute = watched(sv.widgets.StepExplorer.compute)


def explorer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())
    return sv.widgets.StepExplorer(model, torch.randn(4, 3, 16, 16))
"""


def handle(page, number: int):
    return page.locator(".specviz-explorer").nth(number).get_by_role("slider", name="error")


def test_two_live_steps_moved_at_once_end_at_their_last_values_with_the_kernel_alive():
    with open_cells(BEGIN, "first = explorer()\nfirst.view", "second = explorer()\nsecond.view") as page:
        in_kernel(page, "threads.clear(); most = 0", "0")
        for turn in range(12):
            for number, key in ((0, "ArrowRight"), (1, "ArrowLeft" if turn % 3 == 2 else "ArrowRight")):
                handle(page, number).focus()
                for _ in range(1 + (turn + number) % 3):
                    page.keyboard.press(key)
        ends = [(1 + float(handle(page, number).get_attribute("aria-valuenow"))) / 100 for number in (0, 1)]
        assert ends[0] != ends[1] != 0.05
        facts = f"[e.facts()['error'] for e in (first, second)] == {ends}"
        wait_until(page, lambda answer: answer == "True", lambda: in_kernel(page, "", facts))
        assert in_kernel(page, "", "(len(threads), most)") == "(2, 1)"
        for number, name in enumerate(("first", "second")):
            check_undisturbed(page, page.locator(".specviz-explorer").nth(number), name, ends[number])


def check_undisturbed(page, own, name: str, error: float):
    """The page, the facts and the curve are those of an explorer that nobody disturbed."""
    alone = in_kernel(page, f"alone = explorer(); alone.set(error={error})", "alone.panels.facts")
    expected = {fact[0]: fact[1] for fact in ast.literal_eval(alone)}
    wait_until(page, lambda shown: shown == expected, lambda: shown_facts(own))
    assert in_kernel(page, "", f"{name}.facts() == alone.facts()") == "True"
    wait_until(page, lambda drawn: drawn == "True", lambda: in_kernel(page, "", "alone._redraw_by is None"))
    y = ast.literal_eval(in_kernel(page, "", "alone.lines[0].plot.lines[1].y.tolist()"))
    drawn = "(gd) => [...(gd._fullData?.[1]?.y ?? [])]"
    wait_until(page, lambda now: now == y, lambda: own.locator(".js-plotly-plot").evaluate(drawn))
