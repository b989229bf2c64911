"""Geom-GCN's form: WebKB's Texas, Cornell and Wisconsin, Actor (film), Chameleon and Squirrel, with ten splits.

Format: two tab-separated text files with a header each, `out1_node_feature_label.txt` and `out1_graph_edges.txt`, and
NumPy archives `split_0.npz` and on. The nodes' file holds `node_id`, the features and the label. Features are a list of
0 and 1, one for each column, or where the card's `layout.features` is "indices" a list of the columns that are 1, of
`layout.width`. Labels run from 0 to `layout.num_classes` - 1. The edges' file holds pairs of node ids, source and
target. A split holds the masks [N] `train_mask`, `val_mask` and `test_mask`, of 0 and 1, in the order of the ids.

Any folder of this form can be read by its path. Then features are indices where the header counts them, as Actor's
`feature(feature_amount:931)` does, columns and classes are as many as are named, and every `split_*.npz` that lies
there is a split, those with numbers first and in their order.

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
- Cornell's features and labels are Texas's, to the byte, in the folder new_data of Geom-GCN and in ACM's repository:
  only the edges differ. A folder of which that is true, or which is called so, gets a note.
- The repository's folder of Actor is called film, and so is the folder that is looked for here.
"""

import re
import zipfile
from array import array
from pathlib import Path
from typing import Literal

import dgl
import numpy as np
import torch

from hgat.data import card as cards
from hgat.data import labels, tables
from hgat.data.card import Card
from hgat.data.files import find_all, sha256
from hgat.data.sets import PARTS, NodeData
from hgat.data.split import Drawn, class_counts, drawn
from hgat.errors import DataError

LARGEST = 1 << 30  # elements of the features; Actor has 7 million


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    path: str | None = None,
    split: int | Drawn | None = None,
    draws: int = 10,
    normalize: Literal["row", "none"] = "row",
) -> NodeData:
    """Load a graph in Geom-GCN's form: NodeData with features [N, F] and all splits of the files.

    `path`: another folder of this form in the place of the card's, whose name the data then have.
    `split`: None for all that there are, of which seed k takes number k in turn, the first at first; a number, that one
    alone; or `draws` at random with the sizes of a paper, see hgat.data.split.drawn. A note says how many nodes of each
    class are in each part.
    `normalize`: "row" divides each node's features by their sum, as Geom-GCN, FAGCN and ACM do; "none" leaves zeros and
    ones.
    Raises DataError for a split that is not there and for files that are missing, damaged or at odds.
    """
    if path is None:
        files, name, notes = find_all(card, folder, verify), card.name, card.notes
    else:
        where = Path(path).expanduser()
        files, name = _own(where), where.resolve().name
        notes = _whose(name, files)
    roles = [role for role in files if role.startswith("split")]
    if split is None and not roles:
        raise DataError(f"{where}: expected splits, split_0.npz and on, or data.split to draw some, got none")
    if isinstance(split, int) and not 0 <= split < len(roles):
        raise DataError(f"{name}.split: expected 0 to {len(roles) - 1}, got {split}")
    feat, label = _nodes(files["nodes"], card.layout if path is None else _layout(files["nodes"]))
    source, target = _edges(files["edges"], len(label))
    classes = card.layout["num_classes"] if path is None else int(label.max()) + 1
    if classes > len(label):
        raise DataError(f"{files['nodes']}: expected labels below its {len(label)} nodes, got {classes - 1}")
    if isinstance(split, str):
        splits, note = drawn(label, classes, split, draws, name)
        notes = (*notes, note)
    else:
        splits = tuple(_split(files[role], len(label)) for role in roles)
        notes = notes if path is not None else (*notes, *card.split_notes)
    chosen = (splits[split],) if isinstance(split, int) else splits
    if normalize == "row":
        feat /= feat.sum(1, keepdim=True).clamp_(min=1)  # sums of zeros and ones: one below 1 is 0
    return NodeData(
        name=name,
        graph=dgl.graph((source, target), num_nodes=len(label)),
        feat={"_N": feat},
        target="_N",
        label=label,
        **chosen[0],
        num_classes=classes,
        class_names=labels.class_names(card, classes) if path is None else (),
        notes=(*notes, class_counts(label, chosen, classes)),
        splits=() if isinstance(split, int) else splits,
    )


def _own(where):
    """{role: file} of a folder that no card describes, with as many splits as lie there."""
    if not where.is_dir():
        raise DataError(f"data.path: expected a folder of Geom-GCN's form, got {where}, which is none")
    found = {"nodes": where / "out1_node_feature_label.txt", "edges": where / "out1_graph_edges.txt"}
    for file in found.values():
        if not file.is_file():
            raise DataError(f"{where}: expected the file {file.name}, got none")

    def place(file):
        number = re.fullmatch(r"split_([0-9]+)\.npz", file.name)
        return (0, int(number[1]), file.name) if number else (1, 0, file.name)

    splits = sorted(where.glob("split_*.npz"), key=place)
    return found | {f"split{k}": file for k, file in enumerate(splits)}


def _layout(path):
    """What a card says of its nodes' file: whether features are indices. Columns and classes are left open."""
    _, header = next(tables.rows(path, 3), (0, ("", "", "")))
    return {"features": "indices" if "feature_amount" in header[1] else "binary", "width": None, "num_classes": None}


def _whose(name, files):
    """A note where features and labels are not those of the name that they may have."""
    texas = cards.read("texas")
    same = {role: sha256(files[role]) == texas.file(role).sha256 for role in ("nodes", "edges")}
    if same["nodes"] and not same["edges"]:
        return (
            "The features and labels of this folder are those of Texas, to the byte, as two public repositories have "
            "them under the name of Cornell: only the links are others.",
        )
    if name.lower().startswith("cornell"):
        return ("Two public repositories hold Texas's features and labels under the name of Cornell; these differ.",)
    return ()


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
    width = layout["width"] if sparse else None  # None: as many as there are
    ids, label, content, owner = array("q"), array("q"), array("q") if sparse else bytearray(), array("q")
    seen = set()
    for number, (name, row, kind) in _body(path, 3, "node_id", "label"):
        node = tables.integer(name, path, number)
        if node in seen:
            tables.refuse(path, number, "a node id that no line before has", name)
        seen.add(node)
        found = tables.integer(kind, path, number)
        if classes is not None and found >= classes:
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
    if width is None:
        width = max(content, default=0) + 1
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
    if width is not None and text.count(",") >= 2 * width:
        tables.refuse(path, number, f"a list of at most {2 * width} features", str(text.count(",") + 1))
    columns = [tables.integer(column, path, number) for column in text.split(",")]
    if width is not None and max(columns) >= width:
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
