"""torch.fx sees our functions and layers as it sees torch's: as one node each."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from specviz.functional.symbolic import one_node


@one_node
def halved(x: torch.Tensor, times: int = 1) -> torch.Tensor:
    """Looks at values, which no proxy has."""
    return x / 2**times if x.sum() > 0 else x


class Halve(nn.Module):
    @one_node
    def forward(self, x):
        return halved(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([Halve(), nn.Linear(3, 3)])

    def forward(self, x):
        return halved(x=self.stages[1](self.stages[0](x)).abs(), times=2) + 1


def test_a_model_is_traced_with_a_node_for_each_and_computes_the_same():
    model, x = Model(), torch.rand(2, 3)
    traced = torch.fx.symbolic_trace(model)
    nodes = {node.op: node.target for node in traced.graph.nodes if node.name.startswith(("stages_0", "halved"))}
    assert nodes == {"call_module": "stages.0", "call_function": halved}
    assert_close(traced(x), model(x))
    again = torch.fx.symbolic_trace(traced)
    assert_close(again(x), model(x))


def test_outside_of_a_trace_it_is_the_function_with_its_name_and_signature():
    assert halved.__name__ == "halved"
    assert_close(halved(torch.ones(1), times=3).item(), 0.125)
    compiled = torch.compile(Halve(), backend="eager", fullgraph=False)
    assert_close(compiled(torch.ones(1)).item(), 0.5)


def test_a_layer_alone_is_no_model_to_trace():
    with pytest.raises(TypeError, match="Halve is one node of torch.fx: trace a model that contains it"):
        torch.fx.symbolic_trace(Halve())
