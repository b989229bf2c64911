"""A planted toy for every task: what is asked can be told from the graph, and from nothing else.

Every system of hgat.models is found by its file and gets a toy of each task that it solves: the first on which it
prepares and builds with its defaults. Where a setting has no default, or a system reads nodes without features in
several ways, the toy offers what fits it, by the setting's name.
"""

import inspect
from dataclasses import dataclass, field
from typing import Literal, get_args, get_origin, get_type_hints

import dgl
import torch

from hgat import models, tasks
from hgat.data import EventData, GraphData, NodeData, SignedData, StreamData, TripleData
from hgat.errors import HgatError
from hgat.graph import from_events
from hgat.train.fit import Training
from hgat.train.recipe import Train

__all__ = ["CASES", "Case", "cases", "forms", "rates"]

CLASSES = 3


@dataclass(frozen=True)
class Toy:
    """data(seed): the data set. task, train: settings. graph, model: on offer. beats: points above `control`."""

    data: object
    task: dict = field(default_factory=dict)
    train: dict = field(default_factory=dict)
    graph: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    control: str = "no_graph"
    beats: float = 15.0


def _split(nodes, generator):
    order = torch.randperm(nodes, generator=generator)
    return {"train": order[: nodes // 2], "val": order[nodes // 2 : 3 * nodes // 4], "test": order[3 * nodes // 4 :]}


def neighbours(seed=0):
    """A node's own features say little of its class; those of ten nodes that are mostly of its class say all."""
    generator = torch.Generator().manual_seed(seed)
    nodes, width = 180, 8
    label = torch.arange(nodes) % CLASSES
    src = torch.arange(nodes).repeat_interleave(5)
    alike = torch.rand(len(src), generator=generator) < 0.9
    step = torch.randint(0, nodes // CLASSES, (len(src),), generator=generator) * CLASSES
    dst = torch.where(alike, (src + step) % nodes, torch.randint(0, nodes, (len(src),), generator=generator))
    keep = src != dst
    graph = dgl.to_simple(dgl.graph((torch.cat([src[keep], dst[keep]]), torch.cat([dst[keep], src[keep]]))))
    feat = 0.8 * torch.eye(CLASSES, width)[label] + torch.randn(nodes, width, generator=generator)
    names = tuple("abc")
    split = _split(nodes, generator)
    return NodeData("neighbours", graph, {"_N": feat}, "_N", label, **split, num_classes=CLASSES, class_names=names)


def films(seed=0):
    """A film's class is that of the users who like it, and of nothing else; hated films say nothing."""
    generator = torch.Generator().manual_seed(seed)
    films, users = 120, 60
    label, taste = torch.arange(films) % CLASSES, torch.arange(users) % CLASSES
    src, dst = torch.arange(users).repeat(films), torch.arange(films).repeat_interleave(users)
    draw = torch.rand(len(src), generator=generator)
    likes = (draw < 0.1) & (taste[src] == label[dst])
    hates = draw > 0.95
    data = {("user", "likes", "film"): (src[likes], dst[likes]), ("user", "hates", "film"): (src[hates], dst[hates])}
    data["film", "liked by", "user"] = data["user", "likes", "film"][::-1]
    data["film", "hated by", "user"] = data["user", "hates", "film"][::-1]
    graph = dgl.heterograph(data, num_nodes_dict={"film": films, "user": users})
    feat = {
        "film": 0.5 * torch.eye(CLASSES, 6)[label] + torch.randn(films, 6, generator=generator),
        "user": torch.eye(CLASSES, 4)[taste] + torch.randn(users, 4, generator=generator),
    }
    split = _split(films, generator)
    return NodeData("films", graph, feat, "film", label, **split, num_classes=CLASSES, class_names=tuple("abc"))


def heights(seed=0):
    """A node's number is the mean of what the senders of one relation have, and those of the other say nothing."""
    generator = torch.Generator().manual_seed(seed)
    nodes, senders, each = 160, 90, 4
    edges = {}
    for name in ("told", "noise"):
        src = torch.randint(0, senders, (nodes * each,), generator=generator)
        edges["sender", name, "node"] = src, torch.arange(nodes).repeat_interleave(each)
    feat = {"sender": torch.randn(senders, 3, generator=generator), "node": torch.randn(nodes, 2, generator=generator)}
    told = edges["sender", "told", "node"][0].view(nodes, each)
    label = 7.0 + 5.0 * feat["sender"][told, 0].mean(1)
    graph = dgl.heterograph(edges, num_nodes_dict={"sender": senders, "node": nodes})
    split = _split(nodes, generator)
    return NodeData(
        "heights", graph, feat, "node", label, **split, num_classes=1, class_names=("metres",), numeric=True
    )


def circles(seed=0):
    """Who meets is of one circle; everybody meets somebody in every step, and seldom the same one."""
    generator = torch.Generator().manual_seed(seed)
    nodes, steps, circle = 40, 8, 10
    src = torch.arange(nodes).repeat(4 * steps)
    step = torch.arange(steps).repeat_interleave(4 * nodes)
    away = torch.randint(1, circle, (len(src),), generator=generator)
    dst = src // circle * circle + (src % circle + away) % circle
    time = step.double() + torch.rand(len(src), generator=generator, dtype=torch.float64)
    order = torch.argsort(time)
    graph = from_events((src[order], dst[order], time[order]), nodes)
    return EventData("circles", graph, {"_N": None}, {"_N": tuple(range(nodes))})


def turns(seed=0):
    """Sources 0 to 18 meet destinations 19 to 41 of their own group of five, at whole seconds."""
    generator = torch.Generator().manual_seed(seed)
    events, groups, sources, targets = 1499, 5, 19, 23
    src = torch.randint(0, sources, (events,), generator=generator)
    size = (targets - src % groups + groups - 1) // groups
    which = (torch.rand(events, generator=generator) * size).long()
    graph = from_events((src, sources + src % groups + which * groups, torch.arange(events)), sources + targets)
    return EventData("turns", graph, {"_N": None}, {"_N": tuple(range(sources + targets))})


def runs(seed=0):
    """A run fails as the last runs on its machine did, until that is mended or breaks; who runs it says nothing."""
    generator = torch.Generator().manual_seed(seed)
    events, machines, people = 1000, 9, 4
    machine = torch.randint(0, machines, (events,), generator=generator)
    person = torch.randint(0, people, (events,), generator=generator)
    broken = torch.arange(machines) % 2
    label = torch.empty(events, dtype=torch.int64)
    chance = torch.rand(events, 2, generator=generator)
    for k, m in enumerate(machine.tolist()):
        broken[m] = 1 - broken[m] if chance[k, 0] < 0.04 else broken[m]
        label[k] = 1 - broken[m] if chance[k, 1] < 0.05 else broken[m]
    asked = 10 * torch.arange(events)
    known = asked + torch.randint(0, 30, (events,), generator=generator)
    every = torch.arange(events)
    links = {("run", "on", "machine"): (every, machine, known), ("run", "by", "person"): (every, person, known)}
    feat = {"run": torch.randn(events, 3, generator=generator), "machine": None, "person": torch.eye(people)}
    graph = from_events(links, {"run": events, "machine": machines, "person": people})
    after = torch.stack([label.float(), torch.randn(events, generator=generator)], 1)
    return StreamData("runs", graph, feat, "run", asked, label, 6000, 8000, after)


def camps(seed=0):
    """Who is of one's own of two camps is liked and who is of the other is not, but for one in twenty."""
    generator = torch.Generator().manual_seed(seed)
    nodes, edges = 60, 900
    key = torch.randperm(nodes * nodes, generator=generator)[:edges]
    src, dst = key // nodes, key % nodes
    sign = torch.where(src % 2 == dst % 2, 1, -1)
    sign = torch.where(torch.rand(edges, generator=generator) < 0.05, -sign, sign)
    return SignedData("camps", dgl.graph((src, dst), num_nodes=nodes), sign)


def parties(seed=0):
    """Who is linked is of one party of twelve, most of whom are linked; a node's own features say nothing of it."""
    generator = torch.Generator().manual_seed(seed)
    nodes, party, width = 120, 12, 8
    src, dst = torch.combinations(torch.arange(nodes)).T
    linked = (src // party == dst // party) & (torch.rand(len(src), generator=generator) < 0.6)
    src, dst = src[linked], dst[linked]
    graph = dgl.graph((torch.cat([src, dst]), torch.cat([dst, src])), num_nodes=nodes)
    feat = torch.randn(nodes, width, generator=generator)
    label = torch.zeros(nodes, dtype=torch.int64)
    return NodeData("parties", graph, {"_N": feat}, "_N", label, **_split(nodes, generator), num_classes=1)


def meetings(seed=0):
    """Who of a graph is met by somebody marked decides its class; the others' words, and how many, say nothing."""
    generator = torch.Generator().manual_seed(seed)
    graphs, nodes = 200, 7
    label, every = torch.arange(graphs) % CLASSES, torch.arange(graphs * nodes)
    word = torch.randint(0, CLASSES, (graphs * nodes,), generator=generator)
    order = torch.rand(graphs, nodes, generator=generator).argsort(1) + nodes * torch.arange(graphs).unsqueeze(1)
    met, marked = order[:, 0], order[:, 1]
    word[met] = label
    feat = torch.cat([torch.eye(CLASSES)[word], torch.zeros(len(every), 1)], 1)
    feat[marked] = torch.tensor([0.0] * CLASSES + [1.0])
    away = torch.randint(1, nodes, (len(every),), generator=generator)
    dst = every // nodes * nodes + (every + away) % nodes
    dst[marked] = met
    graph = dgl.graph((every, dst), num_nodes=len(every))
    graph.set_batch_num_nodes(torch.full((graphs,), nodes))
    graph.set_batch_num_edges(torch.full((graphs,), nodes))
    split = _split(graphs, generator)
    return GraphData("meetings", graph, {"_N": feat}, label, **split, num_classes=CLASSES)


def guilds(seed=0):
    """Members of six guilds of ten; relation k leads from a guild to the one k + 1 further on, to three members."""
    generator = torch.Generator().manual_seed(seed)
    members, guild, relations, each = 60, 10, 3, 5
    head = torch.arange(members).repeat_interleave(relations * each)
    relation = torch.arange(relations).repeat_interleave(each).repeat(members)
    place = torch.stack([torch.randperm(guild, generator=generator)[:each] for _ in range(members * relations)])
    tail = (head // guild + relation + 1) % (members // guild) * guild + place.flatten()
    rows = torch.stack([head, relation, tail], 1)
    triples = {part: rows[ids] for part, ids in _split(len(rows), generator).items()}
    return TripleData("guilds", triples, tuple(map(str, range(members))), ("serves", "owes", "hates"))


PATHS = {"liked": ["liked by", "likes"], "hated": ["hated by", "hates"]}
QUICK = {"metric": "accuracy", "epochs": 80, "lr": 0.02, "weight_decay": 5e-4, "patience": 80}
TOYS = {
    "graphs": [Toy(meetings, {"batch": 32}, {**QUICK, "epochs": 15}, control="majority")],
    "links": [Toy(parties, {"out_feats": 16}, {"metric": "auc", "epochs": 40, "lr": 0.01, "patience": 40}, beats=20.0)],
    "nodes": [Toy(neighbours, {}, QUICK), Toy(films, {}, QUICK, graph={"paths": PATHS})],
    "numbers": [Toy(heights, {}, {**QUICK, "metric": "r2"}, beats=40.0)],
    "signs": [
        Toy(
            camps,
            {"val_share": 0.2, "test_share": 0.2, "batch": 37},
            {"metric": "macro_f1", "epochs": 30, "lr": 0.02, "patience": 30},
            model={"hidden": 7},
            control="always_positive",
        )
    ],
    "triples": [
        Toy(
            guilds,
            {"out_feats": 16, "batch": 37},
            {"metric": "mrr", "epochs": 9, "lr": 0.02, "patience": 9},
            model={"hidden": 16, "layers": 1, "hops": 2, "in_drop": 0.0, "feat_drop": 0.0, "attn_drop": 0.0},
            control="counting",
            beats=10.0,
        )
    ],
    "snapshot_links": [
        Toy(
            circles,
            {"windows": 8, "first_target": 7, "num_walks": 5, "walk_length": 10},
            {"metric": "macro_auc", "epochs": 30, "lr": 0.01, "patience": 30},
            control="chance",
            beats=20.0,
        )
    ],
    "stream_links": [
        Toy(
            turns,
            {"batch": 53, "new_nodes": 0.05},
            {"metric": "auc", "epochs": 12, "lr": 0.02, "patience": 12},
            model={"node_input": "learned", "hidden": 11, "heads": 1, "layers": 1, "neighbours": 5, "time_feats": 7},
            control="chance",
            beats=20.0,
        )
    ],
    "stream_labels": [
        Toy(
            runs,
            {"batch": 53},
            {"metric": "auc", "epochs": 12, "lr": 0.01, "patience": 12},
            graph={"neighbours": 5},
            model={"hidden": 13, "heads": 1, "time_feats": 7, "time_unit": 100.0},
            beats=20.0,
        )
    ],
}


@dataclass(frozen=True)
class Case:
    """A system, a task that it solves, and the toy that fits it."""

    system: str
    task: str
    toy: Toy

    def __str__(self):
        return f"{self.system}-{self.task}"

    @property
    def cls(self):
        return models.find(self.system)

    def ask(self, seed=0):
        """The task on the toy, for seed 0."""
        return tasks.find(self.task)(self.toy.data(seed), **self.toy.task).for_seed(0).rounds()[-1]

    def inputs(self, shown):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.cls.prepare(shown, **_offered(self.cls.prepare, self.toy.graph))

    def build(self, shown, inputs, **settings):
        return self.cls.build(shown, inputs, **{**_offered(self.cls.__init__, self.toy.model), **settings})

    def setting(self, seed=0, **settings):
        """(task, inputs, a model with fresh weights)."""
        task = self.ask(seed)
        inputs = self.inputs(task.shown())
        torch.manual_seed(0)
        return task, inputs, task.completed(self.build(task.shown(), inputs, **settings))

    def batch(self, task, model, inputs):
        """The first batch of an epoch."""
        return next(iter(task.batches(model, inputs)))

    def result(self, cls=None, **settings):
        """The result of a whole training; cls: another system, a control say, in the place of this one."""
        task = tasks.find(self.task)(self.toy.data(0), **self.toy.task).for_seed(0)

        def prepared(task):
            shown = {"train": task.shown(), "val": task.shown_at("val"), "test": task.shown_at("test")}
            prepare = self.inputs if cls is None else cls.prepare
            return {part: prepare(facts) for part, facts in shown.items()}

        def build(task, inputs):
            if cls is not None:
                return task.completed(cls.build(task.shown(), inputs["train"]))
            return task.completed(self.build(task.shown(), inputs["train"], **settings))

        training = Training(task, Train(**self.toy.train), prepared, build)
        while training.step():
            pass
        return training.finish()


def _offered(function, offer):
    """Of the settings on offer those that a function has."""
    return {key: value for key, value in offer.items() if key in inspect.signature(function).parameters}


def _fits(case):
    try:
        case.setting()
    except (HgatError, TypeError):
        return False
    return True


def cases():
    """Every system with every task that it solves, on the first toy that fits it."""
    found = []
    for system in models.available():
        for task in models.find(system).solves:
            on_offer = [Case(system, task, toy) for toy in TOYS[task]]
            fitting = [case for case in on_offer if _fits(case)]
            if not fitting:
                on_offer[0].setting()  # says why not
            found.append(fitting[0])
    return found


CASES = cases()


def _settings(cls):
    """{name: (annotation, default)} of a system's settings."""
    hints = get_type_hints(cls.__init__)
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: (hints[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def rates(case):
    """The settings that are rates of dropout."""
    return [name for name in _settings(case.cls) if name.endswith("_drop")]


def forms(case):
    """Settings to try: the defaults, and every setting that has few values, one at a time, where it builds."""
    found = [{}]
    for name, (kind, default) in _settings(case.cls).items():
        if kind is bool:
            others = [not default]
        elif get_origin(kind) is Literal:
            others = [choice for choice in get_args(kind) if choice != default]
        else:
            others = {"heads": [[3], [2, 1]], "layers": [1, 3], "hidden": [5]}.get(name, [])
        for value in others:
            try:
                case.setting(**{name: value})
            except HgatError:  # this value asks for another one beside it
                continue
            found.append({name: value})
    return found
