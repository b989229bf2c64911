"""Geom-GCN's form: WebKB's Texas, Cornell and Wisconsin, Actor (film), Chameleon and Squirrel, with ten splits.

Format: two tab-separated text files with a header each, and ten NumPy archives. The nodes' file holds `node_id`, the
features and the label. Features are a list of 0 and 1, one for each column, or where the card's `layout.features` is
"indices" a list of the columns that are 1, of `layout.width`. Labels run from 0 to `layout.num_classes` - 1. The
edges' file holds pairs of node ids, source and target. A split holds the masks [N] `train_mask`, `val_mask` and
`test_mask`, of 0 and 1, in the order of the ids.

Traps:
- Edges are directed: of Texas's 19 % have their opposite, of Actor's 22 %. Here they are as the file states them;
  `hgat.graph.prepare(undirected=True)` adds the other direction. 37 nodes of Texas and 2,255 of Actor are no edge's
  target but perhaps their own.
- Actor's file lists 3,372 edges again, which a reader that keeps them weighs double. Here each appears once, as in
  Geom-GCN's own code.
- Self-loops are in the files, 16 of Texas and 93 of Actor, and stay: code that adds the identity counts those twice.
- Actor's nodes are not in the order of their ids; masks are.
- The header of Actor says 931 features, and the columns run from 0 to 931. Ten lists name a column twice, which is 1
  all the same. Column 931 stands alone wherever it stands, for 172 nodes: probably that there is no keyword.
- 203 of Texas's columns are zero for all its nodes.
- The archives are named 0.6_0.2 by their authors, and hold 48, 32 and 20 % of the nodes.
- Class 1 of Texas has one node: splits 0, 1, 2 and 7 do not train on it, the others can test nothing of it.
- Masks are bool in some archives and uint8 in others, even of one data set.
- Cornell's features and labels are Texas's, to the byte, in the folder new_data of Geom-GCN: only the edges differ.
- The repository's folder of Actor is called film, and so is the folder that is looked for here.
"""

import zipfile
from array import array
from pathlib import Path
from typing import Literal

import dgl
import numpy as np
import torch

from hgat.data import labels, tables
from hgat.data.card import Card
from hgat.data.files import find_all
from hgat.data.sets import PARTS, NodeData
from hgat.errors import DataError

LARGEST = 1 << 30  # elements of the features; Actor has 7 million


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    split: int | None = None,
    normalize: Literal["row", "none"] = "row",
) -> NodeData:
    """Load a graph in Geom-GCN's form: NodeData with features [N, F] and all splits of the files.

    `split`: None for all ten, of which seed k takes number k in turn, the first at first; or a number, that one alone.
    `normalize`: "row" divides each node's features by
    their sum, as Geom-GCN, FAGCN and ACM do; "none" leaves zeros and ones.
    Raises DataError for a split that is not there and for files that are missing, damaged or at odds.
    """
    roles = [file.role for file in card.files if file.role.startswith("split")]
    if split is not None and not 0 <= split < len(roles):
        raise DataError(f"{card.name}.split: expected 0 to {len(roles) - 1}, got {split}")
    path = find_all(card, folder, verify)
    feat, label = _nodes(path["nodes"], card.layout)
    source, target = _edges(path["edges"], len(label))
    splits = tuple(_split(path[role], len(label)) for role in roles)
    if normalize == "row":
        feat /= feat.sum(1, keepdim=True).clamp_(min=1)  # sums of zeros and ones: one below 1 is 0
    classes = card.layout["num_classes"]
    return NodeData(
        name=card.name,
        graph=dgl.graph((source, target), num_nodes=len(label)),
        feat={"_N": feat},
        target="_N",
        label=label,
        **splits[split or 0],
        num_classes=classes,
        class_names=labels.class_names(card, classes),
        notes=card.notes,
        splits=splits if split is None else (),
    )


def _body(path, columns, first, last):
    """The rows below the header, whose first and last field are these."""
    for number, fields in tables.rows(path, columns):
        if number > 1:
            yield number, fields
        elif (fields[0], fields[-1]) != (first, last):
            tables.refuse(path, number, f"the header from {first} to {last}", repr("\t".join(fields)))


def _nodes(path, layout):
    """float32 features [N, F] of zeros and ones and int64 labels [N], in the order of the ids."""
    sparse, classes = layout["features"] == "indices", layout["num_classes"]
    width = layout["width"] if sparse else None
    ids, label, content, owner = array("q"), array("q"), array("q") if sparse else bytearray(), array("q")
    seen = set()
    for number, (name, row, kind) in _body(path, 3, "node_id", "label"):
        node = tables.integer(name, path, number)
        if node in seen:
            tables.refuse(path, number, "a node id that no line before has", name)
        seen.add(node)
        found = tables.integer(kind, path, number)
        if found >= classes:
            tables.refuse(path, number, f"a label from 0 to {classes - 1}", kind)
        if sparse:
            columns = _columns(row, width, path, number)
            content.extend(columns)
            owner.extend([node] * len(columns))
        else:
            flags = _flags(row, path, number)
            width = width or len(flags)
            if len(flags) != width:
                tables.refuse(path, number, f"{width} features as in the line before", str(len(flags)))
            content += flags
        ids.append(node)
        label.append(found)
    nodes = len(ids)
    if not nodes:
        raise DataError(f"{path}: expected at least one node, got none")
    missing = next((node for node in range(nodes) if node not in seen), None)
    if missing is not None:
        raise DataError(f"{path}: expected the ids 0 to {nodes - 1} for its {nodes} nodes, got none that is {missing}")
    if nodes * width > LARGEST:
        raise DataError(f"{path}: expected at most {LARGEST:,} features of all nodes, got {nodes} * {width}")

    order = torch.tensor(ids).argsort()
    if sparse:
        feat = torch.zeros(nodes, width)
        feat[torch.tensor(owner), torch.tensor(content)] = 1
    else:
        feat = torch.frombuffer(content, dtype=torch.uint8).view(nodes, width)[order].float()
    return feat, torch.tensor(label)[order]


def _columns(text, width, path, number):
    """The columns that are 1, of a list that may name one again."""
    if text.count(",") >= 2 * width:
        tables.refuse(path, number, f"a list of at most {2 * width} features", str(text.count(",") + 1))
    columns = [tables.integer(column, path, number) for column in text.split(",")]
    if max(columns) >= width:
        tables.refuse(path, number, f"features from 0 to {width - 1}", str(max(columns)))
    return columns


def _flags(text, path, number):
    """Bytes that are 0 or 1, of text like 0,1,1."""
    text = text.encode()
    flags = text[::2].translate(FLAGS)
    if len(text) % 2 == 0 or text[1::2].strip(b",") or flags.strip(b"\0\1"):
        tables.refuse(path, number, "a list of 0 and 1 between commas", repr(text.decode()))
    return flags


FLAGS = bytes.maketrans(b"01\0\1", b"\0\1\2\2")


def _edges(path, nodes):
    """Source and target of each distinct edge, sorted by source: two int64 tensors."""
    ends = array("q")
    for number, fields in _body(path, 2, "node_id", "node_id"):
        for text in fields:
            node = tables.integer(text, path, number)
            if node >= nodes:
                tables.refuse(path, number, f"node ids from 0 to {nodes - 1}", text)
            ends.append(node)
    if not ends:
        raise DataError(f"{path}: expected at least one edge, got none")
    found = torch.from_numpy(np.unique(np.frombuffer(ends, dtype=np.int64).reshape(-1, 2), axis=0))
    return found[:, 0].contiguous(), found[:, 1].contiguous()


def _split(path, nodes):
    """{"train", "val", "test"}: the int64 ids of a split, ascending."""
    try:
        with zipfile.ZipFile(path) as archive:
            masks = [_mask(archive, f"{part}_mask", path, nodes) for part in PARTS]
    except DataError:
        raise
    except Exception as error:  # neither zipfile nor NumPy's header promises a list of what damaged files raise
        raise DataError(f"{path}: expected an archive of NumPy arrays, got a damaged one ({_cut(error)})") from None
    return {part: torch.from_numpy(np.flatnonzero(mask)) for part, mask in zip(PARTS, masks, strict=True)}


def _mask(archive, name, path, nodes):
    """A bool array [N]; the header is read before anything of a size that the file may choose."""
    if f"{name}.npy" not in archive.namelist():
        raise DataError(f"{path}: expected the array {name}, got none")
    if archive.getinfo(f"{name}.npy").compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed as NumPy does not")
    with archive.open(f"{name}.npy") as member:
        # Only the header's first form: 64 KiB at most. Arrays of objects, pickles, are refused by their type.
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{name} has a header of another form")
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        if shape != (nodes,) or dtype.kind not in "bui":
            got = _cut(f"{dtype} {list(shape)}")
            raise DataError(f"{path}: {name}: expected a mask [{nodes}] of bool or integers, got {got}")
        size = nodes * dtype.itemsize
        content = member.read(size + 1)
    if len(content) != size:
        got = f"{len(content)}" if len(content) < size else "more"
        raise DataError(f"{path}: {name}: expected {size} bytes as its header says, got {got}")
    values = np.frombuffer(content, dtype=np.uint8 if dtype.kind == "b" else dtype)  # a byte of bool may be 2
    odd = values[~np.isin(values, (0, 1))]
    if len(odd):
        raise DataError(f"{path}: {name}: expected only 0 and 1, got {odd[0]}")
    return values == 1


def _cut(text):
    return " ".join(str(text).split())[:120]
