"""OGB's data sets of whole graphs by the names of cards, so that `hgat.data.load("ogbg-molhiv")` and recipes can ask.

OGB's own loader reads the files (hgat.data.ogb, as safely as there). They have no checksums here: OGB publishes none,
and its loader leaves a cache among them.
Format: many graphs, their nodes' features in ndata "feat" and their edges' in edata "feat", both directions of an edge
there. Of molecules these are numbers of categories, nine of an atom and three of a bond, and become one-hot rows of
bytes: a linear map of them is the sum of embeddings that OGB's AtomEncoder and BondEncoder compute.
"""

from pathlib import Path
from typing import Any

import dgl
import torch
from torch import Tensor

from hgat.data.card import Card
from hgat.data.sets import GraphData
from hgat.errors import DataError

__all__ = ["load"]


def load(card: Card, folder: Path, *, verify: bool = True) -> GraphData:
    """Load one of OGB's data sets of graphs with classes, or a stand-in for it, with OGB's split.

    `verify`: the number of classes is the card's; there are no checksums. Raises DataError for categories that OGB does
    not know.
    """
    from hgat.data import ogb  # the package ogb takes seconds to import

    data: Any = ogb.load(card.name, Path(folder).parent)
    graph = dgl.batch(data.graphs)
    of_atoms, of_bonds = ogb.categories()
    return GraphData(
        card.name,
        graph,
        {"_N": _one_hot(card.name, "atoms", graph.ndata.pop("feat"), of_atoms)},
        data.label,
        data.train,
        data.val,
        data.test,
        num_classes=data.num_classes,
        edge_feat=_one_hot(card.name, "bonds", graph.edata.pop("feat"), of_bonds),
        multilabel=data.multilabel,
        metric=data.metric,
        notes=data.notes,
    )


def _one_hot(name: str, what: str, rows: Tensor, sizes: list[int]) -> Tensor:
    """[N, sum of sizes] uint8: one 1 for each column of rows [N, columns], numbers below `sizes`."""
    limit, rows = torch.tensor(sizes), rows.long()
    if rows.dim() != 2 or rows.shape[1] != len(sizes):
        raise DataError(f"{name}: {what}: expected {len(sizes)} categories each, got {list(rows.shape[1:])}")
    odd = ((rows < 0) | (rows >= limit)).nonzero()
    if len(odd):
        row, column = odd[0].tolist()
        got = f"{int(rows[row, column])} in column {column}"
        raise DataError(f"{name}: {what}: expected numbers from 0 to {sizes[column] - 1}, got {got}")
    found = torch.zeros(len(rows), sum(sizes), dtype=torch.uint8)
    return found.scatter_(1, rows + limit.cumsum(0) - limit, 1)
