"""A small citation data set in Planetoid's format, as files, for tests that go through the whole program."""

import pickle
from pathlib import Path

import numpy as np
import scipy.sparse as sp

__all__ = ["RECIPE", "contents", "write"]

KNOWN, TRAIN, TEST, WIDTH, CLASSES = 589, 47, 97, 13, 3

# The data set's card is Citeseer's, the only one of the format without checksums; its counts are others.
RECIPE = """
title = "GAT on a small graph"
[paper]
title = "none"
authors = "none"
year = 2024
link = ""
[data]
name = "citeseer"
verify = false
[model]
system = "gat"
hidden = 5
heads = [2, 1]
feat_drop = 0.2
attn_drop = 0.2
value_drop = 0.2
[train]
metric = "accuracy"
epochs = 5
lr = 0.02
weight_decay = 5e-4
controls = ["no_graph", "uniform"]
[expect]
paper = [50.0, 1.0]
"""


def contents(seed=0):
    """{part: content} of the eight files: features and links that tell the class, but not too well."""
    random = np.random.default_rng(seed)
    nodes = KNOWN + TEST
    label = random.integers(0, CLASSES, nodes)
    feat = random.random((nodes, WIDTH)) + 0.6 * np.eye(CLASSES, WIDTH)[label]
    one_hot = np.eye(CLASSES, dtype=np.int32)[label]
    graph = {node: [] for node in range(nodes)}
    for a, b in random.integers(0, nodes, (4 * nodes, 2)):
        if label[a] == label[b] or random.random() < 0.4:
            graph[int(a)].append(int(b))
            graph[int(b)].append(int(a))
    return {
        "x": sp.csr_matrix(feat[:TRAIN]),
        "y": one_hot[:TRAIN],
        "allx": sp.csr_matrix(feat[:KNOWN]),
        "ally": one_hot[:KNOWN],
        "tx": sp.csr_matrix(feat[KNOWN:]),
        "ty": one_hot[KNOWN:],
        "graph": graph,
        "test.index": list(range(KNOWN, nodes)),
    }


def write(root, **changes):
    """Write the data set under `root`, some parts replaced; bytes are written as they are. Gives `root`."""
    folder = Path(root) / "citeseer"
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in {**contents(), **changes}.items():
        if part == "test.index":
            content = "".join(f"{node}\n" for node in content).encode()
        elif not isinstance(content, bytes):
            content = pickle.dumps(content, protocol=4)
        (folder / f"ind.citeseer.{part}").write_bytes(content)
    return Path(root)
