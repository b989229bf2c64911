"""docs/attention.md: its Python runs, what it names exists, and the entries that need no class of their own hold."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from batches import batch
from padded import padded_sets

import hgat
from hgat import models
from hgat.graph import padded
from hgat.nn import Fusion, GeneralAttention, GlobalAttentionPooling
from hgat.nn.general import ALIGNMENTS, SCORES

PAGE = Path(__file__).parents[2] / "docs" / "attention.md"
TEXT = PAGE.read_text(encoding="utf-8")
F = 6


def test_python_of_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) == 5
    names = {}
    for block in blocks:
        exec(compile(block, "docs/attention.md", "exec"), names)
    assert names["pairs"].shape == (2, 56) and names["of_atoms"].shape == (8,)
    assert names["beta"].shape == (7, 3) and names["of_class"].shape == (8, 4)


def test_what_the_page_names_exists():
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.S)
    for name in re.findall(r"`([A-Z][a-z]\w*[A-Z0-9]\w*)[`(]", prose):
        assert hasattr(hgat.nn, name) or hasattr(torch.nn, name), name
    assert set(re.findall(r'`score="(\w+)"`?', prose)) >= set(SCORES)
    assert set(re.findall(r'alignment="(\w+)"', prose)) == set(ALIGNMENTS)
    known = inspect.signature(GeneralAttention.__init__).parameters
    for keyword in ("window", "centre", "gaussian", "top_k", "gradient", "temperature", "multi_dimensional", "query"):
        assert re.search(rf"`?{keyword}\b", prose) and keyword in known


@pytest.mark.parametrize("system", models.available())
def test_every_system_has_its_place(system):
    table = TEXT[TEXT.index("| system | score") :].replace("-", "")  # AM-GCN is AMGCN
    assert re.search(rf"\b{models.find(system).__name__}\b", table)


def test_self_attentive_queries():
    """w . tanh(W x + b) on sets and on graphs, and a query that is a parameter."""
    torch.manual_seed(0)
    graph, feat = batch(F)
    x, mask = padded(graph, feat)
    gate = torch.nn.Sequential(torch.nn.Linear(F, F), torch.nn.Tanh(), torch.nn.Linear(F, 1, bias=False))
    sets = GeneralAttention(F, F, score="additive", query="none", values="input")
    with torch.no_grad():
        sets.feature_model.fc_key.weight.copy_(gate[0].weight)
        sets.attention_model.bias.copy_(gate[0].bias.unsqueeze(0))
        sets.attention_model.attn.copy_(gate[2].weight)
    out, alpha = GlobalAttentionPooling(gate)(graph, feat, get_attention=True)
    wanted, weights = sets(None, x, mask=mask, get_attention=True)
    torch.testing.assert_close((out, alpha.squeeze(1)), (wanted, weights[mask]))
    trained = GeneralAttention(F, F, score="multiplicative", query="trained", keys="input", values="input")
    gate = torch.nn.Linear(F, 1, bias=False)
    with torch.no_grad():
        gate.weight.copy_(trained.query_model.trained)
    torch.testing.assert_close(GlobalAttentionPooling(gate)(graph, feat), trained(None, x, mask=mask))


@pytest.mark.parametrize("heads", [1, 3])
def test_heads_are_pytorchs(heads):
    """And one head is single attention behind one more linear map."""
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(F, heads, batch_first=True).double().eval()
    torch.nn.init.normal_(theirs.in_proj_bias)
    ours = GeneralAttention(F, F // heads, heads, map_bias=True, output_feats=F, bias=True).double()
    maps = ours.query_model.fc_query, ours.feature_model.fc_key, ours.feature_model.fc_value
    with torch.no_grad():
        for part, weight, bias in zip(maps, theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True):
            part.weight.copy_(weight)
            part.bias.copy_(bias)
        ours.output_model.fc_out.load_state_dict(theirs.out_proj.state_dict())
    (x, mask), (y, _) = padded_sets(F, (5, 2, 7, 1)), padded_sets(F, (3, 3, 3, 3), seed=4)
    wanted, weights = theirs(y, x, x, ~mask, average_attn_weights=False)
    out, alpha = ours(y, x, mask=mask, get_attention=True)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(alpha.unsqueeze(-1) if heads == 1 else alpha, weights.permute(0, 2, 3, 1))
    if heads == 1:
        single = GeneralAttention(F, F, map_bias=True).double()
        state = ours.state_dict()
        single.load_state_dict({key: state[key] for key in single.state_dict()})
        torch.testing.assert_close(ours.output_model.fc_out(single(y, x, mask=mask)), out)


def test_several_representations_are_a_setting_of_fusion():
    torch.manual_seed(0)
    sources = [torch.randn(7, width).double() for width in (5, 2, 9)]
    maps = [torch.nn.Linear(z.shape[1], F).double() for z in sources]
    fuse = Fusion(F, hidden_feats=4).double()
    rows, beta = fuse([linear(z) for linear, z in zip(maps, sources, strict=True)])
    first, _, last = fuse.project
    for i in range(7):
        x = torch.stack([m.weight @ z[i] + m.bias for m, z in zip(maps, sources, strict=True)])
        e = torch.tanh(x @ first.weight.T + first.bias) @ last.weight[0]
        a = e.exp() / e.exp().sum()
        torch.testing.assert_close((rows[i], beta[i]), (a @ x, a))
