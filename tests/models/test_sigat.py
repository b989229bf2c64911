"""What is special about SiGAT: learned rows, motifs that can be left out, degrees that are read where asked for."""

import pytest
import torch
from toys import camps

from hgat import tasks
from hgat.errors import GraphError, ShapeError
from hgat.models import SiGAT


def _setting(number=38, **settings):
    shown = tasks.find("signs")(camps(), val_share=0.2, test_share=0.2).for_seed(0).shown()
    inputs = SiGAT.prepare(shown, motifs=number)
    torch.manual_seed(0)
    return inputs, SiGAT.build(shown, inputs, **settings)


@pytest.mark.parametrize("motifs", [38, 6, 2])
def test_rows_are_a_perceptron_of_all_motifs(motifs):
    (views, degrees), model = _setting(motifs, hidden=5, out_feats=3)
    x = model.embedding.weight
    every = torch.cat([x, *model.layer(views, x).unbind(1)], 1)
    first, second = model.fc_in, model.fc_out
    expected = torch.tanh(every @ first.weight.t() + first.bias) @ second.weight.t() + second.bias
    torch.testing.assert_close(model(views, degrees), expected)
    assert every.shape == (60, 5 * (1 + motifs)) and expected.shape == (60, 3)


def test_degrees_are_read_where_asked_for():
    for asked in (False, True):
        (views, degrees), model = _setting(2, degrees=asked)
        same = torch.equal(model(views, degrees), model(views, degrees + 1))
        assert same != asked


def test_motifs_left_out_leave_the_embeddings():
    (views, degrees), model = _setting(6, motifs=False)
    assert model.layer is None and model.attention(views, degrees) == []
    x = model.embedding.weight
    assert torch.equal(model(views, degrees), model.fc_out(torch.tanh(model.fc_in(x))))


def test_attention_is_the_layers():
    inputs, model = _setting(6)
    (alpha,) = model.attention(*inputs)
    assert alpha.shape == (inputs[0].graph.num_edges(), 1) and (alpha > 0).all()


def test_wrong_inputs_are_one_sentence():
    (views, degrees), model = _setting(6)
    other = _setting(2)[0][0]
    with pytest.raises(GraphError, match="for 6, got 2 views"):
        model(other, degrees)
    with pytest.raises(ShapeError, match="degrees: expected"):
        model(views, degrees[1:])
