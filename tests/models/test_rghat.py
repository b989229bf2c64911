"""What is special about RGHAT: a stack with residuals and one row of a relation, names with its state, shares."""

import pytest
import torch
from toys import guilds

from hgat import tasks
from hgat.errors import GraphError, ShapeError
from hgat.models import RGHAT
from hgat.nn.names import StateError


def setting(graph=None, **settings):
    shown = tasks.find("triples")(guilds(), out_feats=6).shown()
    inputs = RGHAT.prepare(shown, **(graph or {}))
    torch.manual_seed(0)
    return inputs, RGHAT.build(shown, inputs, **{"hidden": 8, "heads": 2, **settings})


def test_layers_share_the_rows_of_relations_and_add_what_they_receive():
    (groups,), model = setting(layers=2)
    rel = model.relation.weight
    h = model.layers[0](groups, model.entity.weight, rel) + model.entity.weight
    torch.testing.assert_close(model(groups), model.layers[1](groups, h, rel) + model.skip(h))
    assert model(groups).shape == (60, 6)
    (groups,), model = setting(layers=1, residual=False)
    torch.testing.assert_close(model(groups), model.layers[0](groups, model.entity.weight, model.relation.weight))


def test_both_directions_are_relations_of_their_own_unless_one_is_asked_for():
    (groups,), model = setting()
    assert groups.relations == ("hates", "owes", "serves", "hates^-1", "owes^-1", "serves^-1")
    assert len(model.relation.weight) == 6 and groups.within.num_edges() == 2 * 450
    (groups,), model = setting(graph={"inverse": False})
    assert len(model.relation.weight) == 3 and groups.within.num_edges() == 450


def test_attention_and_its_shares():
    (groups,), model = setting()
    found = model.attention(groups)
    assert [alpha.shape for alpha, _ in found] == 2 * [(len(groups.group), 2)]
    (first, _) = model.attended(groups)
    assert first.names == groups.relations
    relation, node = groups.group.relation, groups.group.node
    mean = torch.stack([found[0][0][relation == k].mean(1).sum() for k in range(6)]) / len(node.unique())
    torch.testing.assert_close(torch.tensor(first.attention), mean.detach())


def test_a_state_of_relations_in_another_order_is_put_right():
    (groups,), model = setting()
    other = RGHAT(60, groups.relations[::-1], 6, hidden=8, heads=2)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.relation.weight, model.relation.weight.flip(0))
    with pytest.raises(StateError, match="expected relations"):
        RGHAT(60, ("a", "b", "c", "d", "e", "f"), 6, hidden=8, heads=2).load_state_dict(model.state_dict())


def test_wrong_inputs_are_one_sentence():
    (groups,), model = setting()
    with pytest.raises(ShapeError, match=r"rel_feat: expected \[R, F_r\] = \[3, 8\], got \[6, 8\]"):
        model(*setting(graph={"inverse": False})[0])
    with pytest.raises(GraphError, match="groups: expected what hgat.graph.relation_groups gives"):
        model(groups.within)
    with pytest.raises(ShapeError, match="in_feats: expected a multiple of 3 heads, got 8"):
        setting(heads=3)
    with pytest.raises(ShapeError, match="layers: expected .*1 or more, got 0"):
        setting(layers=0)
