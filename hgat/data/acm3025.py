"""HAN's ACM: papers of three areas as meta-path graphs, with the authors' split.

Format: one MATLAB file of dense 0/1 matrices. `feature` [N, F], `label` [N, C] one-hot, `train_idx`,
`val_idx`, `test_idx` [1, n] with ids from 0, and an [N, N] matrix for each meta-path. Read here: `PAP`
(papers that share an author) and `PLP` (that share a subject; the HAN paper calls it PSP), each as one
relation from paper to paper.

Traps:
- Both matrices hold the diagonal: self-loops come from the file, and are kept as the file states them.
  Without them 561 papers have no neighbour under PAP.
- `PTP` (a shared term) links almost all pairs and `PMP` is not used by the paper: neither is read.
- `PLP` has 730 neighbours a paper: 2.2 million edges.
- The features are 1,870 wide; the paper's table says 1,830.
- The file's parts differ from one another: validation says little of test. `split_seed` draws others to compare.
"""

from pathlib import Path

import dgl
import numpy as np
import scipy.io
import scipy.sparse as sp
import torch

from hgat.data import labels
from hgat.data.card import Card
from hgat.data.files import find
from hgat.data.sets import NodeData
from hgat.data.split import per_class
from hgat.errors import DataError

RELATIONS = ("PAP", "PLP")
PARTS = ("train_idx", "val_idx", "test_idx")
LARGEST = 1 << 28  # elements of a matrix; the file's have 9 million


def load(card: Card, folder: Path, *, verify: bool = True, split_seed: int | None = None) -> NodeData:
    """Load ACM as one node type `paper` with the relations PAP and PLP.

    split_seed: None for the file's split, else the seed of a random one with as many of every class.
    """
    path = find(card, card.file("mat"), folder, verify)
    content = _read(path)
    label = labels.from_one_hot(content["label"], path)
    nodes = len(label)
    links = {}
    for relation in RELATIONS:
        if content[relation].shape != (nodes, nodes):
            raise DataError(f"{path}: {relation}: expected [{nodes}, {nodes}], got {list(content[relation].shape)}")
        source, target = np.nonzero(content[relation])
        links["paper", relation, "paper"] = torch.from_numpy(source), torch.from_numpy(target)
    train, val, test = (torch.from_numpy(content[part].ravel().astype(np.int64)) for part in PARTS)
    classes = content["label"].shape[1]
    if split_seed is not None:
        train, val, test = per_class(label, len(train) // classes, len(val) // classes, split_seed, "papers")
    return NodeData(
        name=card.name,
        graph=dgl.heterograph(links, {"paper": nodes}),
        feat={"paper": torch.from_numpy(content["feature"].astype(np.float32))},
        target="paper",
        label=label,
        train=train,
        val=val,
        test=test,
        num_classes=classes,
        class_names=labels.class_names(card, classes),
        notes=card.notes,
    )


def _read(path):
    """The named variables as plain numeric arrays of two dimensions."""
    names = [*RELATIONS, "feature", "label", *PARTS]
    try:
        # MATLAB objects and functions come back as inert arrays of bytes: nothing in the file is run.
        content = scipy.io.loadmat(path, variable_names=names)
    except Exception as error:  # SciPy promises no list of what a damaged file raises
        raise DataError(f"{path}: expected a MATLAB file, got one that cannot be read ({error})") from error
    arrays = {}
    for name in names:
        if name not in content:
            raise DataError(f"{path}: expected the variable {name}, got none")
        value = content[name]
        if sp.issparse(value):
            value = _dense(value, name, path)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.ndim != 2:
            raise DataError(f"{path}: {name}: expected a matrix of numbers, got {type(value).__name__}")
        arrays[name] = value
    return arrays


def _dense(matrix, name, path):
    """The array of a sparse matrix, whose ids SciPy takes as the file states them and writes to."""
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise DataError(f"{path}: {name}: expected a whole sparse matrix, got a broken one ({error})") from None
    if matrix.shape[0] * matrix.shape[1] > LARGEST:
        raise DataError(f"{path}: {name}: expected at most {LARGEST:,} elements, got {list(matrix.shape)}")
    return matrix.toarray()
