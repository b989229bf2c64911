"""A folder of one's own tables: nodes and edges as CSV files with a header each, which pandas reads.

Format: `TYPE.nodes.csv` has a row for every node of a type, its id in the column `id`;
`SOURCE.NAME.DESTINATION.edges.csv` a row for every edge, with the ids of its ends in the columns `src` and `dst`. A
graph of one type has `nodes.csv` and `edges.csv`. The other columns of nodes are numbers, and together their features,
but for the label, which may be text, and masks `train_mask`, `val_mask` and `test_mask`. Of edges the column `time` is
kept: numbers, or dates as ISO writes them.
"""

from pathlib import Path

import pandas

from hgat.data.card import Card
from hgat.data.own import node_data
from hgat.data.sets import NodeData
from hgat.errors import DataError, GraphError

__all__ = ["load", "tables"]

ENDS = (".nodes.csv", ".edges.csv")


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    path: str | None = None,
    label: str | None = None,
    target: str | None = None,
    split: list[float] | None = None,
    split_seed: int = 0,
    draws: int = 10,
) -> NodeData:
    """The tables at `path` as NodeData; label: the column of the target's table that has the classes or numbers.

    target, split, split_seed, draws: see hgat.data.node_data. Raises DataError for what is missing or does not fit.
    """
    where = Path(path or "").expanduser()
    name = where.resolve().name
    return node_data(tables(where), label, target=target, split=split, split_seed=split_seed, draws=draws, name=name)


def tables(folder: str | Path) -> tuple[dict[str, pandas.DataFrame], dict[tuple[str, str, str], pandas.DataFrame]]:
    """({node type: table}, {relation: table}) of a folder, as hgat.graph.from_pandas takes them; DataError for none."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"data.path: expected a folder of tables, got {folder}, which is none")
    nodes: dict[str, pandas.DataFrame] = {}
    edges: dict[tuple[str, str, str], pandas.DataFrame] = {}
    for file in sorted(folder.glob("*.csv")):
        name = file.name if file.name.startswith((ENDS[0][1:], ENDS[1][1:])) else None
        parts = () if name else tuple(file.name.removesuffix(ENDS[0]).removesuffix(ENDS[1]).split("."))
        if name == "nodes.csv" or file.name.endswith(ENDS[0]) and len(parts) == 1:
            nodes["_N" if name else parts[0]] = _read(file)
        elif name == "edges.csv" or file.name.endswith(ENDS[1]) and len(parts) == 3:
            src, relation, dst = parts or ("_N", "_E", "_N")
            edges[src, relation, dst] = _read(file)
        else:
            expected = "TYPE.nodes.csv, SOURCE.NAME.DESTINATION.edges.csv, nodes.csv or edges.csv"
            raise DataError(f"{folder}: expected files that are called {expected}, got {file.name}")
    if not edges:
        raise DataError(f"{folder}: expected tables of edges, got none")
    return nodes, edges


def _read(file):
    try:
        table = pandas.read_csv(file)
        if "time" in table.columns and not pandas.api.types.is_numeric_dtype(table["time"]):
            table["time"] = pandas.to_datetime(table["time"], utc=True, format="ISO8601")
        return table
    except (OSError, ValueError, GraphError) as error:  # pandas' own errors of reading are ValueErrors
        raise DataError(f"{file}: expected a table, got {' '.join(str(error).split())[:120]}") from None
