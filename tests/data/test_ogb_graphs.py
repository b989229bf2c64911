"""OGB's sets of graphs by the names of their cards, through OGB's own files: categories, split, scores as OGB's."""

import numpy as np
import pandas as pd
import pytest
import torch
from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder

import hgat.data
from hgat.data import GraphData, ogb, ogb_graphs, ogb_samples
from hgat.errors import DataError
from hgat.models import GraphGAT
from hgat.tasks.graphs import Graphs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """ogbg-molhiv, and ogbg-moltox21 with twelve labels of which some are unknown, as OGB writes it: nothing there."""
    folder = tmp_path_factory.mktemp("ogbg")
    make, _ = ogb_samples.SAMPLES["ogbg-molhiv"]

    def several(rng, graphs, facts):
        files = make(rng, graphs, facts)
        label = np.concatenate([files["raw/graph-label.csv.gz"], rng.integers(2, size=(graphs, 11))], 1).astype(float)
        label[rng.random(label.shape) < 0.3] = np.nan
        return {**files, "raw/graph-label.csv.gz": pd.DataFrame(label).to_numpy()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ogb_samples.SAMPLES, "ogbg-moltox21", (several, 120))
        for name in ("ogbg-molhiv", "ogbg-moltox21"):
            ogb_samples.write_sample(name, folder, nodes=120)
    return folder


@pytest.mark.parametrize("name", ["ogbg-molhiv", "ogbg-moltox21"])
def test_graphs_labels_and_split_are_what_ogbs_loader_gives(root, name):
    data, found = hgat.data.load(name, root), ogb.load(name, root)
    assert isinstance(data, GraphData) and (data.name, data.metric) == (name, "auc") and data.stands_in
    assert data.multilabel and data.label.shape == (120, {"ogbg-molhiv": 1}.get(name, 12))
    torch.testing.assert_close(data.label, found.label, equal_nan=True)
    for part, ids in found.split.items():
        assert data.split[part].equal(ids)
    assert data.graph.batch_num_nodes().tolist() == [g.num_nodes() for g in found.graphs]
    assert data.graph.batch_num_edges().tolist() == [g.num_edges() for g in found.graphs]
    assert not data.graph.ndata and not data.graph.edata


def test_a_linear_map_of_the_rows_is_ogbs_encoder(root):
    data, found = hgat.data.load("ogbg-molhiv", root), ogb.load("ogbg-molhiv", root)
    atoms, bonds = AtomEncoder(5), BondEncoder(5)
    for encoder, rows, key in (
        (atoms.atom_embedding_list, data.feat["_N"], "ndata"),
        (bonds.bond_embedding_list, data.edge_feat, "edata"),
    ):
        weight = torch.cat([embedding.weight for embedding in encoder])
        raw = torch.cat([getattr(graph, key)["feat"] for graph in found.graphs])
        wanted = sum(embedding(raw[:, k]) for k, embedding in enumerate(encoder))
        torch.testing.assert_close(rows.float() @ weight, wanted)


@pytest.mark.parametrize("name", ["ogbg-molhiv", "ogbg-moltox21"])
def test_the_task_scores_as_ogb_does(root, name):
    data, found = hgat.data.load(name, root), ogb.load(name, root)
    task = Graphs(data, batch=50)
    inputs = GraphGAT.prepare(task.shown())
    torch.manual_seed(0)
    model = GraphGAT.build(task.shown(), inputs, hidden=8).eval()
    score, loss = task.evaluate(model, inputs, "test", "auc")
    with torch.no_grad():
        logits = model.rows(inputs, data.test)
    assert score == pytest.approx(found.evaluate("test", logits)) and np.isfinite(loss)
    (batch, *_) = task.batches(model, inputs)
    task.loss(model.train().answer(inputs, batch), batch).backward()


def test_a_category_that_ogb_does_not_know_is_one_sentence():
    rows = torch.zeros(3, 2)
    rows[1, 1] = 4
    with pytest.raises(DataError, match="x: atoms: expected numbers from 0 to 3, got 4 in column 1"):
        ogb_graphs._one_hot("x", "atoms", rows, [2, 4])
    with pytest.raises(DataError, match=r"x: atoms: expected 3 categories each, got \[2\]"):
        ogb_graphs._one_hot("x", "atoms", rows, [2, 4, 3])
    assert ogb_graphs._one_hot("x", "atoms", torch.tensor([[1, 3]]), [2, 4]).tolist() == [[0, 1, 0, 0, 0, 1]]
