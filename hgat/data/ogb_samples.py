"""Small stand-ins for OGB's data sets, in OGB's format: `python -m hgat.data.ogb sample NAME DIR` writes one.

Each has the schema of the real data set and a planted structure: what decides a node's label, or which links exist,
stands beside as much that is false, and a mark on nodes or edges, the relation, or the number of a node's links tells
one from the other. A mean over all neighbours mixes the two.
"""

import argparse
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims

from hgat.data.ogb import OGB_PARTS, STAND_IN, facts_of, folder_of
from hgat.errors import DataError, OutputError

__all__ = ["SAMPLES", "main", "write_sample"]

CIRCLE = 12  # nodes that share a label and are linked among themselves
GROUPS = 4  # of a circle: one group shows the true class and is trusted, each other group shows one false class
YEARS = {"train": (2005, 2018), "valid": (2018, 2019), "test": (2019, 2021)}


def write_sample(
    name: str, folder: str | Path, nodes: int | None = None, seed: int = 0, share: float | None = None
) -> Path:
    """Write a small data set with the schema of `name` into `folder/ogbn_arxiv` and the like; that path.

    nodes: of the labelled type, of all types, or for ogbg graphs; 120 or more. share: instead of nodes, the part of
    the real data set's nodes and edges that are written, of every type, for ogbn-arxiv and ogbn-mag. The same seed
    gives the same files.
    Raises DataError for a name without a sample or too few nodes, OutputError where the data set exists already.
    """
    if name not in SAMPLES:
        raise DataError(f"sample: expected one of {', '.join(SAMPLES)}, got {name!r}")
    make, usual = SAMPLES[name]
    if share is not None:
        if name not in REAL or nodes is not None:
            expected = f"one of {', '.join(REAL)} and no number of nodes"
            raise DataError(f"share: expected {expected}, got {name} and {nodes}")
        counts = {part: {key: round(count * share) for key, count in of.items()} for part, of in REAL[name].items()}
        make, nodes = partial(make, counts=counts), counts["nodes"][LABELLED[name]]
    nodes = usual if nodes is None else nodes
    if nodes < 120:
        raise DataError(f"nodes: expected 120 or more, got {nodes}")
    facts, folder = facts_of(name), folder_of(name, folder)
    if folder.exists():
        raise OutputError(f"{name}: expected no data set in {folder}, got one; remove it or name another folder")
    size = f"nodes {nodes}" if share is None else f"{share:g} of its size"
    note = f"{STAND_IN} {name} written by hgat ({size}, seed {seed}): not OGB's data."
    files = make(np.random.default_rng(seed), nodes, facts)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            whole = Path(temporary) / folder.name
            for path, content in files.items():
                _write(whole / path, content)
            (whole / f"RELEASE_v{facts['version']}.txt").write_text(f"{note}\n", encoding="utf-8")
            os.rename(whole, folder)
    except OSError as error:
        raise OutputError(f"{name}: expected to write {folder}, got: {error.strerror or error}") from None
    return folder


def _write(path, content):
    """A dict of arrays as OGB's splits of links, a DataFrame with its header, any other array without one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(content, path)
        return
    header = isinstance(content, pd.DataFrame)
    # mtime: else the same table gives another file every second.
    compression = {"method": "gzip", "compresslevel": 6, "mtime": 1}
    pd.DataFrame(content).to_csv(path, index=False, header=header, compression=compression)


def _column(values):
    return np.asarray(values).reshape(-1, 1)


def _one_graph(nodes, edge):
    return {
        "raw/edge.csv.gz": edge,
        "raw/num-node-list.csv.gz": [[nodes]],
        "raw/num-edge-list.csv.gz": [[len(edge)]],
    }


def _typed_graph(sizes, edges):
    """sizes: {node type: nodes}; edges: {relation: [E, 2]}, whose columns "reltype" are numbers in OGB's order."""
    files = {
        "raw/num-node-dict.csv.gz": pd.DataFrame({ntype: [size] for ntype, size in sorted(sizes.items())}),
        "raw/triplet-type-list.csv.gz": sorted(edges),
    }
    for number, relation in enumerate(sorted(edges)):
        folder = f"raw/relations/{'___'.join(relation)}"
        files[f"{folder}/edge.csv.gz"] = edges[relation]
        files[f"{folder}/num-edge-list.csv.gz"] = [[len(edges[relation])]]
        files[f"{folder}/edge_reltype.csv.gz"] = np.full((len(edges[relation]), 1), number)
    return files


def _split(facts, part, below=""):
    """Files of ids; part: [N] of 0, 1, 2."""
    return {
        f"split/{facts['split']}/{below}{name}.csv.gz": _column(np.flatnonzero(part == number))
        for number, name in enumerate(OGB_PARTS)
    }


def _circles(nodes, span=CIRCLE):
    """The circle and the part of each node, [N] each, and the links inside the circles, [E, 2]."""
    circle = np.arange(nodes) // span
    pairs = np.array(list(itertools.combinations(range(span), 2)))
    edge = (np.arange(circle[-1] + 1)[:, None, None] * span + pairs).reshape(-1, 2)
    return circle, np.array([0, 0, 0, 1, 2])[circle % 5], edge[edge[:, 1] < nodes]


def _shuffled(rng, nodes, edge, *columns):
    """Nodes and edges in any order and each edge in any direction, so that no id tells anything."""
    place = rng.permutation(nodes)
    edge = place[rng.permuted(edge, axis=1)]
    return edge[rng.permutation(len(edge))], *(column[np.argsort(place)] for column in columns)


def _skewed(rng, size, count):
    """`count` of the numbers below `size`, in a power law of how often each is drawn."""
    weight = np.cumsum(np.arange(1, size + 1) ** -0.7)
    rank = np.searchsorted(weight, rng.random(count) * weight[-1])
    return rng.permutation(size)[rank.clip(max=size - 1)]


def _trusted(rng, nodes, classes, width, links=None):
    """Labels that trusted neighbours show: features [N, width], labels [N], parts [N], links [E, 2].

    Column 0 of the features marks the trusted quarter of each circle, whose other columns show its class. The other
    three quarters show a false class each, so that the plain mean of a neighbourhood does not tell which is true.
    Links between circles join nodes that are not trusted. Only as many classes occur as training has six circles of.
    links: how many there are in all; those between circles then end at skewed degrees.
    """
    circle, part, edge = _circles(nodes)
    count = circle[-1] + 1
    occurring = min(classes, max(GROUPS, (part[::CIRCLE] == 0).sum() // 6))
    chosen = np.append(rng.permutation(classes - 1)[: occurring - 1], classes - 1)
    rank = np.array([(part[::CIRCLE][:k] == part[k * CIRCLE]).sum() for k in range(count)])
    order = rng.permutation(occurring)
    classes_of = np.stack([rng.permutation(occurring)[:GROUPS] for _ in range(count)])
    true = order[rank % occurring]
    # The true class takes the first place; where it stood already, it is swapped there, so the four stay distinct.
    for row, first in zip(classes_of, true, strict=True):
        row[row == first] = row[0]
        row[0] = first
    group = np.arange(nodes) % GROUPS
    shown = classes_of[circle, group]
    feat = rng.normal(size=(occurring, width))[shown] + rng.normal(size=(nodes, width)) / 2
    feat[:, 0] = np.where(group == 0, 6, -2)
    edge = edge[rng.random(len(edge)) < 0.7]
    doubtful = np.flatnonzero(group)
    if links is None:
        across = rng.choice(doubtful, (nodes // 4, 2))
    else:
        edge = edge[:links]
        drawn = 2 * (links - len(edge)) + 100
        across = doubtful[np.stack([rng.integers(len(doubtful), size=drawn), _skewed(rng, len(doubtful), drawn)], 1)]
    edge = np.concatenate([edge, across[circle[across[:, 0]] != circle[across[:, 1]]]])[:links]
    edge, feat, label, part = _shuffled(rng, nodes, edge, feat, chosen[true][circle], part)
    return feat.round(4), label, part, edge


def _years(rng, part):
    year = np.zeros(len(part), dtype=np.int64)
    for number, name in enumerate(OGB_PARTS):
        year[part == number] = rng.integers(*YEARS[name], (part == number).sum())
    return _column(year)


def _papers(rng, nodes, facts, width=128, counts=None):
    """ogbn-arxiv and ogbn-products."""
    links = None if counts is None else counts["edges"]["cites"]
    feat, label, part, edge = _trusted(rng, nodes, int(facts["num classes"]), width, links)
    files = {"raw/node-feat.csv.gz": feat, "raw/node-label.csv.gz": _column(label)}
    if facts["additional node files"] == "node_year":
        files["raw/node_year.csv.gz"] = _years(rng, part)
    return {**_one_graph(nodes, edge), **files, **_split(facts, part)}


def _products(rng, nodes, facts):
    return _papers(rng, nodes, facts, width=100)


def _mag(rng, nodes, facts, counts=None):
    """Papers as in ogbn-arxiv: `cites` tells the class; authors, institutions and fields are drawn at random."""
    sizes = {"paper": nodes, "author": nodes // 8, "institution": nodes // 40, "field_of_study": nodes // 10}
    links = {"affiliated_with": sizes["author"], "writes": sizes["author"] * 8, "has_topic": nodes * 3}
    if counts is not None:
        sizes, links = counts["nodes"], counts["edges"]
    feat, label, part, edge = _trusted(rng, nodes, int(facts["num classes"]), 128, links.get("cites"))

    def drawn(source, name, target):
        """As many links from each source as from the next."""
        ids = np.sort(np.arange(links[name]) % sizes[source])
        ends = rng.integers(sizes[target], size=len(ids)) if counts is None else _skewed(rng, sizes[target], len(ids))
        return np.stack([ids, ends], axis=1)

    edges = {
        ("author", "affiliated_with", "institution"): drawn("author", "affiliated_with", "institution"),
        ("author", "writes", "paper"): drawn("author", "writes", "paper"),
        ("paper", "cites", "paper"): edge,
        ("paper", "has_topic", "field_of_study"): drawn("paper", "has_topic", "field_of_study"),
    }
    has = pd.DataFrame({ntype: [ntype == "paper"] for ntype in sorted(sizes)})
    return {
        **_typed_graph(sizes, edges),
        "raw/nodetype-has-label.csv.gz": has,
        "raw/node-feat/paper/node-feat.csv.gz": feat,
        "raw/node-feat/paper/node_year.csv.gz": _years(rng, part),
        "raw/node-label/paper/node-label.csv.gz": _column(label),
        f"split/{facts['split']}/nodetype-has-split.csv.gz": has,
        **_split(facts, part, "paper/"),
    }


def _proteins(rng, nodes, facts):
    """Edges of strong evidence, column 0, join proteins of one circle; as many of weak evidence join opposite ones.

    A double circle holds proteins with seven functions and proteins with the seven opposite ones. Each shows its
    functions with 3 in 10 wrong; an edge shows in columns 1 to 7 the mean of what its two ends show.
    """
    double, part, edge = _circles(nodes, 2 * CIRCLE)
    side = np.arange(nodes) % 2
    function = rng.integers(2, size=(double[-1] + 1, 7))[double] ^ side[:, None]
    shown = function ^ (rng.random(function.shape) < 0.3)
    edge, side, function, shown, part = _shuffled(rng, nodes, edge, side, function, shown, part)
    strong = side[edge[:, 0]] == side[edge[:, 1]]
    evidence = np.concatenate([_column(np.where(strong, 0.9, 0.1)), shown[edge].mean(1)], axis=1)
    evidence = (evidence + rng.normal(size=evidence.shape) / 20).clip(0.001, 1).round(4)
    species = np.array([[3702, 4932, 6239, 7227, 9606, 511145], [7955] * 6, [10090] * 6])
    return {
        **_one_graph(nodes, edge),
        "raw/edge-feat.csv.gz": evidence,
        "raw/node_species.csv.gz": _column(species[part, rng.integers(6, size=nodes)]),
        "raw/node-label.csv.gz": function[:, np.arange(int(facts["num tasks"])) % 7],
        **_split(facts, part),
    }


def _link_split(facts, parts):
    return {f"split/{facts['split']}/{name}.pt": content for name, content in parts.items()}


def _apart(rng, side, count):
    """`count` pairs of nodes whose sides differ."""
    pairs = rng.integers(len(side), size=(4 * count + 100, 2))
    return pairs[side[pairs[:, 0]] != side[pairs[:, 1]]][:count]


def _collab(rng, nodes, facts):
    """Authors work together often (weight 5 to 9) in their circle, which shares a few words, and once with anyone."""
    circle, _, often = _circles(nodes)
    often, circle = _shuffled(rng, nodes, often, circle)
    held = len(often) // 5
    once = _apart(rng, circle, 10 * nodes)
    feat = rng.normal(size=(circle.max() + 1, 128))[circle] * 0.2 + rng.normal(size=(nodes, 128))
    edge = {
        "train": np.concatenate([often[2 * held :], once]),
        "valid": often[:held],
        "test": often[held : 2 * held],
    }
    parts = {}
    for name, pairs in edge.items():
        weight = np.where(circle[pairs[:, 0]] == circle[pairs[:, 1]], rng.integers(5, 10, len(pairs)), 1)
        year = rng.integers(*YEARS[name], len(pairs)) if name == "train" else np.full(len(pairs), YEARS[name][0])
        parts[name] = {"edge": pairs, "weight": weight, "year": year}
        if name != "train":
            parts[name]["edge_neg"] = _apart(rng, circle, 5 * nodes)
    return {
        **_one_graph(nodes, edge["train"]),
        "raw/node-feat.csv.gz": feat.round(4),
        "raw/edge_weight.csv.gz": _column(parts["train"]["weight"]),
        "raw/edge_year.csv.gz": _column(parts["train"]["year"]),
        **_link_split(facts, parts),
    }


def _ddi(rng, nodes, facts):
    """Drugs interact in their circle and with hubs, which are in none and interact with any.

    One drug in eight is a hub, and only its many partners tell it. So most neighbours say nothing of a drug's circle.
    What is to be predicted, and what is not, joins drugs that are no hubs.
    """
    circle, _, edge = _circles(nodes)
    edge, circle = _shuffled(rng, nodes, edge, circle)
    hubs = rng.permutation(nodes)[: nodes // 8]
    edge = edge[~np.isin(edge, hubs).any(axis=1)]
    held = len(edge) // 5
    drawn = np.stack([np.repeat(np.arange(nodes), 20), rng.choice(hubs, 20 * nodes)], axis=1)
    drawn = np.unique(drawn[circle[drawn[:, 0]] != circle[drawn[:, 1]]], axis=0)
    parts = {"train": {"edge": np.concatenate([edge[2 * held :], drawn])}}
    for number, name in enumerate(OGB_PARTS[1:]):
        apart = _apart(rng, circle, 5 * nodes)
        held_out = edge[number * held : (number + 1) * held]
        parts[name] = {"edge": held_out, "edge_neg": apart[~np.isin(apart, hubs).any(axis=1)]}
    return {**_one_graph(nodes, parts["train"]["edge"]), **_link_split(facts, parts)}


def _ppa(rng, nodes, facts):
    """As ogbl-ddi, of proteins that show their species, one of 58, which says nothing."""
    return {**_ddi(rng, nodes, facts), "raw/node-feat.csv.gz": np.eye(58, dtype=np.int64)[rng.integers(58, size=nodes)]}


def _citation2(rng, nodes, facts):
    """Papers cite papers of their circle, which share a few words, and surveys, which are in no circle and cite none.

    One paper in eight is a survey, and only how often it is cited tells it. What is to be predicted, and what is not,
    leads to papers that are none.
    """
    circle, _, edge = _circles(nodes)
    edge, circle = _shuffled(rng, nodes, edge, circle)
    surveys = rng.permutation(nodes)[: nodes // 8]
    plain = np.setdiff1d(np.arange(nodes), surveys)
    edge = edge[~np.isin(edge, surveys).any(axis=1)]
    held = len(edge) // 5
    drawn = np.unique(np.stack([np.repeat(plain, 8), rng.choice(surveys, 8 * len(plain))], axis=1), axis=0)
    cited = np.concatenate([edge[2 * held :], drawn])
    parts = {"train": {"source_node": cited[:, 0], "target_node": cited[:, 1]}}
    for number, name in enumerate(OGB_PARTS[1:]):
        source, target = edge[number * held : (number + 1) * held].T
        wrong = rng.choice(plain, (len(source), 1000))
        while (near := circle[wrong] == circle[source][:, None]).any():
            wrong[near] = rng.choice(plain, int(near.sum()))
        parts[name] = {"source_node": source, "target_node": target, "target_node_neg": wrong}
    feat = rng.normal(size=(circle.max() + 1, 128))[circle] * 0.2 + rng.normal(size=(nodes, 128))
    return {
        **_one_graph(nodes, cited),
        "raw/node-feat.csv.gz": feat.round(4),
        "raw/node_year.csv.gz": _column(rng.integers(*YEARS["train"], nodes)),
        **_link_split(facts, parts),
    }


def _triples(rng, sizes, relations, total, circles):
    """Triples of relations: a quarter join entities of one circle, the others an entity and a hub.

    sizes: {entity type: entities}. An entity is in the circle that its number leaves over; the last tenth are hubs, in
    no circle, and only their many triples tell it. Any two types are joined by as many triples as any other two.
    Returns {"train", "valid", "test"} of relation numbers, heads and tails, [n] each; only triples of circles are held
    out; and {entity type: entities before the first hub}.
    """
    plain = {ntype: size * 9 // 10 // circles * circles for ntype, size in sizes.items()}
    joining = Counter(relations)
    parts = {name: [] for name in OGB_PARTS}
    for number, types in enumerate(relations):
        (heads, tails), (all_heads, all_tails) = ([of[ntype] for ntype in types] for of in (plain, sizes))
        count = max(16, total // len(joining) // joining[types])

        def pairs(count, head, tail):
            """`count` pairs of ids in two ranges."""
            return np.stack([rng.integers(*head, size=count), rng.integers(*tail, size=count)], axis=1)

        found = pairs(count // 4, (0, heads), (0, tails))
        found[:, 1] += found[:, 0] % circles - found[:, 1] % circles
        found = np.unique(found, axis=0)
        found = rng.permutation(found[found[:, 0] != found[:, 1]] if types[0] == types[1] else found)
        other = (
            pairs(count * 3 // 8, (0, heads), (tails, all_tails)),
            pairs(count * 3 // 8, (heads, all_heads), (0, tails)),
        )
        held = max(1, len(found) // 20)
        train = np.concatenate([found[2 * held :], np.unique(np.concatenate(other), axis=0)])
        for name, some in {"train": train, "valid": found[:held], "test": found[held : 2 * held]}.items():
            parts[name].append(np.concatenate([np.full((len(some), 1), number), some], axis=1))
    return {name: np.concatenate(rows).T for name, rows in parts.items()}, plain


def _negatives(rng, near, size, circles):
    """500 entities of other circles than `near` is in and no hubs, [n, 500]; OGB has as many for each triple."""
    drawn = rng.integers(size // circles, size=(len(near), 500)) * circles
    return drawn + (near[:, None] + rng.integers(1, circles, size=drawn.shape)) % circles


def _biokg(rng, nodes, facts):
    """Five types of entities in circles, and hubs that hide them."""
    circles = 12
    sizes = dict.fromkeys(("disease", "drug", "function", "protein", "sideeffect"), nodes // 5)
    found, plain = _triples(rng, sizes, [(head, tail) for head, _, tail in BIOKG], 24 * nodes, circles)
    parts = {}
    for name, (relation, head, tail) in found.items():
        parts[name] = {
            "head_type": [BIOKG[number][0] for number in relation],
            "head": head,
            "relation": relation,
            "tail_type": [BIOKG[number][2] for number in relation],
            "tail": tail,
        }
        if name != "train":
            parts[name]["head_neg"] = _negatives(rng, tail, plain["drug"], circles)
            parts[name]["tail_neg"] = _negatives(rng, head, plain["drug"], circles)
    relation, head, tail = found["train"]
    ends = np.stack([head, tail], axis=1)
    edges = {triple: ends[relation == number] for number, triple in enumerate(BIOKG)}
    return {**_typed_graph(sizes, edges), **_link_split(facts, parts)}


def _wikikg2(rng, nodes, facts):
    """As ogbl-biokg with one type of entity and 535 relations."""
    circles = 12
    found, plain = _triples(rng, {"entity": nodes}, [("entity", "entity")] * 535, 24 * nodes, circles)
    parts = {name: {"head": head, "relation": number, "tail": tail} for name, (number, head, tail) in found.items()}
    for name in OGB_PARTS[1:]:
        parts[name]["head_neg"] = _negatives(rng, parts[name]["tail"], plain["entity"], circles)
        parts[name]["tail_neg"] = _negatives(rng, parts[name]["head"], plain["entity"], circles)
    train = parts["train"]
    return {
        **_one_graph(nodes, np.stack([train["head"], train["tail"]], axis=1)),
        "raw/edge_reltype.csv.gz": _column(train["relation"]),
        **_link_split(facts, parts),
    }


def _molhiv(rng, graphs, facts):
    """A ring P-N-S-O on a chain of carbon, in which phosphorus doubly binds nitrogen (label 1) or oxygen (0).

    Single and double bonds take turns around the ring. So every atom of it has one of each and the same neighbours
    under either label: atoms, bonds, and any number of rounds of means over both tell nothing.
    """
    carbon, nitrogen, oxygen, phosphorus, sulfur = 5, 6, 7, 14, 15  # OGB's categories: the atomic number less one
    part = np.array([0, 0, 0, 1, 2])[np.arange(graphs) // 2 % 5]
    label = np.arange(graphs) % 2
    atoms, bonds, bonded, sizes, counts = [], [], [], [], []
    for positive in label:
        chain = int(rng.integers(8, 15))
        element = np.array([phosphorus, nitrogen, sulfur, oxygen] + [carbon] * chain)
        bond = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (0, 4)] + [(k, k + 1) for k in range(4, chain + 3)])
        kind = np.zeros((len(bond), len(get_bond_feature_dims())), dtype=np.int64)
        kind[:, 0] = [*np.array([positive, 1 - positive] * 2), 0, *rng.integers(2, size=chain - 1)]
        place = rng.permutation(len(element))
        atom = np.zeros((len(element), len(get_atom_feature_dims())), dtype=np.int64)
        atom[:, 0] = element
        atom[:, 2] = np.bincount(bond.ravel())
        atom[:, 3] = 5  # no charge
        atom[:, 4] = rng.integers(4, size=len(element))
        atom[:, 6] = 2
        atom[:4, 8] = 1  # in a ring
        atoms.append(atom[np.argsort(place)])
        bonds.append(place[rng.permuted(bond, axis=1)])
        bonded.append(kind)
        sizes.append(len(element))
        counts.append(len(bond))
    return {
        "raw/edge.csv.gz": np.concatenate(bonds),
        "raw/num-node-list.csv.gz": _column(sizes),
        "raw/num-edge-list.csv.gz": _column(counts),
        "raw/node-feat.csv.gz": np.concatenate(atoms),
        "raw/edge-feat.csv.gz": np.concatenate(bonded),
        "raw/graph-label.csv.gz": _column(label),
        **_split(facts, part),
    }


def _biokg_relations():
    """The 51 relations of ogbl-biokg in OGB's order."""
    ills = """acquired_metabolic_disease bacterial_infectious_disease benign_neoplasm cancer
        cardiovascular_system_disease chromosomal_disease cognitive_disorder cryptorchidism
        developmental_disorder_of_mental_health endocrine_system_disease fungal_infectious_disease
        gastrointestinal_system_disease hematopoietic_system_disease hematopoietic_system_diseases hypospadias
        immune_system_disease inherited_metabolic_disorder integumentary_system_disease irritable_bowel_syndrome
        monogenic_disease musculoskeletal_system_disease nervous_system_disease orofacial_cleft
        parasitic_infectious_disease personality_disorder polycystic_ovary_syndrome pre-malignant_neoplasm
        psoriatic_arthritis reproductive_system_disease respiratory_system_disease sexual_disorder sleep_disorder
        somatoform_disorder struct_sim substance-related_disorder thoracic_disease urinary_system_disease
        viral_infectious_disease"""
    acts = "activation binding catalysis expression inhibition ptmod reaction"
    plain = ["disease-protein", "drug-disease", "drug-protein", "drug-sideeffect", "function-function"]
    relations = [(*name.split("-"), name) for name in [*plain, "protein-function"]]
    relations += [("drug", "drug", f"drug-drug_{ill}") for ill in ills.split()]
    relations += [("protein", "protein", f"protein-protein_{act}") for act in acts.split()]
    return sorted((head, name, tail) for head, tail, name in relations)


BIOKG = _biokg_relations()
# Nodes and edges of the real data sets, from OGB's site.
REAL = {
    "ogbn-arxiv": {"nodes": {"_N": 169_343}, "edges": {"cites": 1_166_243}},
    "ogbn-mag": {
        "nodes": {"paper": 736_389, "author": 1_134_649, "institution": 8_740, "field_of_study": 59_965},
        "edges": {"affiliated_with": 1_043_998, "writes": 7_145_660, "cites": 5_416_271, "has_topic": 7_505_078},
    },
}
LABELLED = {"ogbn-arxiv": "_N", "ogbn-mag": "paper"}
# name -> what makes it, and its usual number of nodes
SAMPLES: dict[str, tuple[Callable[..., dict], int]] = {
    "ogbn-arxiv": (_papers, 2400),
    "ogbn-products": (_products, 2400),
    "ogbn-proteins": (_proteins, 1200),
    "ogbn-mag": (_mag, 2400),
    "ogbl-collab": (_collab, 1200),
    "ogbl-ddi": (_ddi, 600),
    "ogbl-ppa": (_ppa, 600),
    "ogbl-citation2": (_citation2, 600),
    "ogbl-biokg": (_biokg, 600),
    "ogbl-wikikg2": (_wikikg2, 1000),
    "ogbg-molhiv": (_molhiv, 600),
}


def main(argv: list[str] | None = None) -> int:
    """The command line; gives its exit status: 0, or 2 after one sentence that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m hgat.data.ogb", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sample = commands.add_parser("sample", help="write a small stand-in for a data set of OGB's")
    sample.add_argument("name", metavar="NAME", help=", ".join(SAMPLES))
    sample.add_argument("folder", metavar="DIR", help="the root of data sets; the sample is a folder in it")
    sample.add_argument("--nodes", type=int, help="labelled nodes, all nodes, or for ogbg graphs")
    sample.add_argument("--share", type=float, help="instead of --nodes: part of the real size (ogbn-arxiv, ogbn-mag)")
    sample.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    try:
        print(write_sample(arguments.name, arguments.folder, arguments.nodes, arguments.seed, arguments.share))
    except (DataError, OutputError) as error:
        print("hgat:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0
