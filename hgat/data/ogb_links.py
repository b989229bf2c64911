"""OGB's data sets of links by the names of cards, so that `hgat.data.load("ogbl-collab")` and recipes can ask for them.

OGB's own loader reads the files (hgat.data.ogb, as safely as there). They have no checksums here: OGB publishes none,
and its loader leaves a cache among them.
Format: of each part `edge` [M, 2] and, but for training, `edge_neg` [K, 2], against which all links are scored; or, of
ogbl-citation2, `source_node` [M], `target_node` [M] and `target_node_neg` [M, K], each link's own. Where OGB adds the
inverse of every edge, links have no direction.
"""

from pathlib import Path
from typing import Any

import torch

from hgat.data.card import Card
from hgat.data.sets import PARTS, PairData
from hgat.errors import DataError

__all__ = ["load"]


def load(card: Card, folder: Path, *, verify: bool = True, mapped: bool = False) -> PairData:
    """Load one of OGB's data sets of pairs, or a stand-in for it, with OGB's split and OGB's pairs without a link.

    `verify`: there are no checksums. `mapped`: features of nodes lie in memory-mapped files in the folder's `mapped/`
    (hgat.data.mapped). Raises DataError for a split of another form.
    """
    from hgat.data import ogb  # the package ogb takes seconds to import

    data: Any = ogb.load(card.name, Path(folder).parent, mapped=mapped)
    links, negatives = {}, {}
    for part in PARTS:
        found = data.split[part]
        keys = ("edge", "edge_neg") if "edge" in found else ("source_node", "target_node", "target_node_neg")
        missing = [key for key in (keys[:-1] if part == "train" else keys) if key not in found]
        if missing:
            raise DataError(f"{card.name}: split: expected {', '.join(keys)} of {part}, got no {missing[0]}")
        links[part] = _ends(card.name, found, *keys[:-1])
        if part != "train":
            wrong = torch.as_tensor(found[keys[-1]])
            pairs = _ends(card.name, found, keys[-1]) if keys[0] == "edge" else (links[part][0].unsqueeze(1), wrong)
            negatives[part] = pairs
    return PairData(
        card.name,
        data.graph,
        data.feat,
        links,
        negatives,
        directed=ogb.facts_of(card.name)["add_inverse_edge"] != "True",
        metric=data.metric,
        notes=data.notes,
    )


def _ends(name, found, *keys):
    """(source, destination), [M] each: two columns of one array, or two arrays."""
    if len(keys) == 2:
        return torch.as_tensor(found[keys[0]]), torch.as_tensor(found[keys[1]])
    pairs = torch.as_tensor(found[keys[0]])
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise DataError(f"{name}: split: {keys[0]}: expected [M, 2], got {list(pairs.shape)}")
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous()
