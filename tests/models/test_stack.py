"""What every stack of one layer has: its layer's settings, its own, and the places where a subclass joins in."""

import inspect

import pytest
import torch
from systems import CLASSES, IN

from hgat.errors import RecipeError, ShapeError
from hgat.models._stack import Stack
from hgat.models.gat import GAT
from hgat.nn import GATConv, GATv2Conv
from hgat.settings import check_settings
from zoo import build


class Louder(Stack):
    layer = GATConv
    defaults = {"heads": (2, 3), "hidden": 4, "feat_drop": 0.1}

    def more(self, *, gain: float = 1.0, label: str | None = None):
        if gain < 0:
            raise ShapeError(f"gain: expected 0 or more, got {gain}")
        self.gain, self.depth = gain, len(self.layers)

    def merged(self, depth, h):
        return self.gain * super().merged(depth, h)


def test_own_settings_stand_behind_those_of_the_layer():
    settings = inspect.signature(Louder.__init__).parameters
    of_layer = list(inspect.signature(GAT.__init__).parameters)
    assert list(settings) == [*of_layer, "gain", "label"]
    assert [settings[name].default for name in ("heads", "hidden", "feat_drop", "gain")] == [(2, 3), 4, 0.1, 1.0]
    check_settings("model", Louder, {"gain": 2, "label": "x", "bias": False}, RecipeError)
    with pytest.raises(RecipeError, match="model.gain: expected finite float, got 'x'"):
        check_settings("model", Louder, {"gain": "x"}, RecipeError)


def test_own_settings_are_taken_where_the_layers_stand():
    model = Louder(IN, CLASSES, gain=3.0)
    assert (model.gain, model.depth) == (3.0, 2)
    assert [layer.attn_l.shape for layer in model.layers] == [(1, 2, 4), (1, 3, CLASSES)]
    with pytest.raises(ShapeError, match="gain: expected 0 or more, got -1"):
        Louder(IN, CLASSES, gain=-1)
    with pytest.raises(TypeError, match="gain"):
        GAT(IN, CLASSES, gain=1.0)


class Quieter(Louder):
    defaults = {**Louder.defaults, "hidden": 5}


class Other(Louder):
    layer = GATv2Conv
    defaults = {"hidden": 6}

    def more(self, *, shift: float = 0.5):
        super().more(gain=2.0)
        self.shift = shift


def test_a_stack_of_a_stack_has_what_it_says():
    assert [layer._out_feats for layer in Quieter(IN, CLASSES).layers] == [5, CLASSES]
    model = Other(IN, CLASSES, shift=1.5, share_weights=True)
    assert [type(layer) for layer in model.layers] == [GATv2Conv, GATv2Conv]
    assert (model.layers[0]._out_feats, model.gain, model.shift) == (6, 2.0, 1.5)
    with pytest.raises(TypeError, match="gain"):
        Other(IN, CLASSES, gain=1.0)


def test_heads_are_merged_in_one_place():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    plain = Louder(IN, CLASSES, heads=[2]).eval()
    loud = Louder(IN, CLASSES, heads=[2], gain=3.0).eval()
    loud.load_state_dict(plain.state_dict())
    torch.testing.assert_close(loud(graph, feat), 3.0 * plain(graph, feat))
    z = torch.randn(5, 3, 4)
    assert torch.equal(Louder(IN, CLASSES).merged(0, z), z.flatten(1))
    assert torch.equal(Louder(IN, CLASSES).merged(1, z), z.mean(1))


def test_an_encoder_comes_before_the_layers_and_a_decoder_behind_them():
    graph, feat = build("homogeneous"), torch.randn(23, IN)
    model = GAT(IN, CLASSES, hidden=4, heads=[2, 3], encoder=6, decoder=True).eval()
    assert [layer.fc.weight.shape for layer in model.layers] == [(8, 6), (12, 8)]
    h = torch.relu(feat @ model.encoder.weight.t())
    assert 0.9 < GAT(100, CLASSES, encoder=200).encoder.weight.std() < 1.1  # as an embedding begins
    for layer in model.layers:
        h = layer(graph, h).flatten(1)
    torch.testing.assert_close(model(graph, feat), h @ model.decoder.weight.t())
    assert GAT(IN, CLASSES).state_dict().keys() == GAT(IN, CLASSES, encoder=None, decoder=False).state_dict().keys()
    assert not [name for name in GAT(IN, CLASSES).state_dict() if "coder" in name]
    with pytest.raises(ShapeError, match="encoder: expected 1 or more, got 0"):
        GAT(IN, CLASSES, encoder=0)
