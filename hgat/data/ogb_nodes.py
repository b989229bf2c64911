"""OGB's data sets of nodes by the names of cards, so that `hgat.data.load("ogbn-arxiv")` and recipes can ask for them.

OGB's own loader reads the files (hgat.data.ogb, as safely as there). They have no checksums here: OGB publishes none,
and its loader leaves a cache among them.
"""

from pathlib import Path
from typing import cast

from hgat.data.card import Card
from hgat.data.sets import NodeData

__all__ = ["load"]


def load(card: Card, folder: Path, *, verify: bool = True, mapped: bool = False) -> NodeData:
    """Load one of OGB's data sets, or a stand-in for it, with OGB's split.

    `verify`: the number of classes is the card's; there are no checksums. `mapped`: features of nodes and edges lie in
    memory-mapped files in the folder's `mapped/` (hgat.data.mapped).
    """
    from hgat.data import ogb  # the package ogb takes seconds to import

    # Cards name data sets of nodes alone.
    return cast(NodeData, ogb.load(card.name, Path(folder).parent, mapped=mapped))
