"""Systems beside tensors of another device than the graph's, without one: on PyTorch's device without numbers, "meta".

There a tensor of the wrong device, and a step that has to read a number (`.item()`, `nonzero`, a boolean index, an `if`
on a tensor), are errors. So what passes runs on a GPU without waiting for it.
"""

import pytest
import torch
from toys import CASES

from hgat.train.run import Experiment

# SuperGAT draws pairs until enough of them are no edges, and TGAT asks for every pair of a node and a moment
# once: both take a look at what they draw.
LOOKS = {"supergat", "tgat"}


def moved(inputs):
    """The inputs of forward as training brings them to a device: graphs stay."""
    experiment = object.__new__(Experiment)
    experiment.device = torch.device("meta")
    return experiment._moved(inputs)


@pytest.mark.parametrize("case", [case for case in CASES if case.system not in LOOKS], ids=str)
def test_a_step_of_training_reads_no_number(case):
    task, inputs, model = case.setting()
    batch = case.batch(task, model, inputs)
    model.to("meta").train()
    loss = model.objective(task.loss, moved(inputs), batch)
    loss.backward()
    assert loss.shape == () and loss.device.type == "meta"
    trained = [p for group in model.groups() for p in group["params"]]
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in trained)
