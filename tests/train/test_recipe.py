import dataclasses
import json
import re
import warnings

import pytest

from hgat.errors import RecipeError
from hgat.models import GAT, Ablation
from hgat.train import recipe as recipes
from hgat.train.recipe import available, read, to_toml

MINIMAL = """
[paper]
title = "t"
authors = "a"
year = 2020
link = "l"
[data]
name = "cora"
[model]
system = "gat"
[train]
metric = "accuracy"
epochs = 3
lr = 0.01
"""


@pytest.fixture
def written(tmp_path):
    """Writes TOML text to a file and gives its path."""

    def write(text, name="r.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(sentence, name, overrides=()):
    with pytest.raises(RecipeError, match=sentence):
        read(name, overrides)


def without(key):
    """MINIMAL with one line left out."""
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(f"{key} =")]
    assert len(lines) < len(MINIMAL.splitlines())
    return "\n".join(lines)


def test_a_small_recipe_has_the_documented_defaults(written):
    recipe = read(written(MINIMAL))
    assert (recipe.name, recipe.title, recipe.system) == ("r", "r", "gat")
    assert recipe.data == {"name": "cora"} and recipe.graph == {} and recipe.settings("model") == {}
    assert recipe.task == {"name": "nodes"} and recipe.settings("task") == {}
    train = recipe.train
    assert (train.metric, train.epochs, train.lr, train.weight_decay) == ("accuracy", 3, 0.01, 0.0)
    assert (train.optimizer, train.stop, train.patience, train.clip) == ("adam", "metric", 100, None)
    assert (train.least, train.knn_share, train.control_hidden) == (0, None, 64)
    assert (train.refit, train.seeds, train.controls) == (False, 1, [])
    assert recipe.expect.paper == [] and recipe.expect.controls == {}


def test_a_recipe_is_frozen(written):
    recipe = read(written(MINIMAL))
    for part in (recipe, recipe.train, recipe.paper, recipe.expect):
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.title = "other"


@pytest.mark.parametrize(
    "override, path, value",
    [
        ("train.lr=0.5", "train.lr", 0.5),
        ("train.lr=1", "train.lr", 1),
        ("train.lr=5e-4", "train.lr", 5e-4),
        (" train . lr = 0.5 ", "train.lr", 0.5),
        ("train.epochs=1_000", "train.epochs", 1000),
        ("train.stop=either", "train.stop", "either"),
        ('train.stop="either"', "train.stop", "either"),
        ("train.refit=true", "train.refit", True),
        ("train.controls=[]", "train.controls", []),
        ('train.controls=["uniform", "no_graph"]', "train.controls", ["uniform", "no_graph"]),
        ("train.clip=2.5", "train.clip", 2.5),
        ("model.heads=[4, 4, 1]", "model.heads", [4, 4, 1]),
        ("model.residual=true", "model.residual", True),
        ("graph.self_loops=false", "graph.self_loops", False),
        ("paper.comment=a = b, c.d", "paper.comment", "a = b, c.d"),
        ("paper.comment=", "paper.comment", ""),
        ("paper.comment=2020-13-45", "paper.comment", "2020-13-45"),
        ("expect.controls.uniform=[80.5]", "expect.controls.uniform", [80.5]),
        ("data.name=pubmed", "data.name", "pubmed"),
    ],
)
def test_overrides(written, override, path, value):
    got = read(written(MINIMAL), [override])
    for part in path.split("."):
        got = got[part] if isinstance(got, dict) else getattr(got, part)
    assert got == value and type(got) is type(value)


def test_nothing_behind_the_sign_leaves_a_key_out(written):
    """The default holds, which for some keys is None, and TOML has no word for that."""
    path = written(MINIMAL + "clip = 5.0\npatience = 7\n[graph]\nself_loops = false\n")
    recipe = read(path)
    assert (recipe.train.clip, recipe.train.patience, recipe.graph) == (5.0, 7, {"self_loops": False})
    recipe = read(path, ["train.clip=", "train.patience= ", "graph.self_loops="])
    assert (recipe.train.clip, recipe.train.patience, recipe.graph) == (None, 100, {})
    with pytest.raises(RecipeError, match="train.lr: expected finite float, got no such key"):
        read(path, ["train.lr="])
    with pytest.raises(RecipeError, match="train: expected only the keys .*, got 'typo'"):
        read(path, ["train.typo="])


def test_overrides_nest_and_the_last_one_counts():
    paths = ["graph.paths.X=['PAP']", "graph.paths.PAP=['PLP']", "train.lr=0.5", "train.lr=0.25"]
    recipe = read("han-acm3025", paths)
    assert recipe.graph["paths"] == {"PAP": ["PLP"], "PSP": ["PLP"], "X": ["PAP"]}
    assert recipe.train.lr == 0.25
    assert read("han-acm3025").graph["paths"] == {"PAP": ["PAP"], "PSP": ["PLP"]}


@pytest.mark.parametrize("override", ["", "train", "lr=1", "train.lr", "=1", ".=1", "train.=1", ".lr=1", "train..lr=1"])
def test_an_override_without_section_key_and_value(written, override):
    refused(r"--set: expected section.key=value, got " + re.escape(repr(override)), written(MINIMAL), [override])


@pytest.mark.parametrize(
    "override, sentence",
    [
        ("train.lr.x=1", "--set: expected a section in 'train.lr.x', got the key 'lr'"),
        ("title.x=1", "recipe: title: expected a string, got {'x': 1}"),
        (
            "trian.lr=1",
            "expected only the sections title, paper, data, task, graph, model, train, expect, tune, got 'trian'",
        ),
        ("train.learning_rate=1", "train: expected only the keys metric, epochs, .*, got 'learning_rate'"),
        ("paper.doi=1", "paper: expected only the keys title, .*, got 'doi'"),
        ("expect.std=1", "expect: expected only the keys paper, .*, got 'std'"),
        ("model.head=[1]", "model: expected only the keys hidden, heads, .*, got 'head'"),
        ("graph.loops=true", "graph: expected only the keys self_loops, undirected, got 'loops'"),
        ("paper.year='2020'", "paper.year: expected int, got '2020'"),
        ("paper.title=3", "paper.title: expected str, got 3"),
        ("data.name=3", "data.name: expected one of .*cora.*, got 3"),
        ("data.name=coraa", "data.name: expected one of .*cora.*, got 'coraa'"),
        ("graph.self_loops=1", "graph.self_loops: expected bool, got 1"),
        ("model.system=gatt", "model.system: expected one of .*gat, .*, got 'gatt'"),
        ("model.system=['gat']", r"model.system: expected one of .*gat, .*, got \['gat'\]"),
        ("model.heads=8", r"model.heads: expected list\[int\], got 8"),
        ("model.heads=[8.0, 1]", r"model.heads: expected list\[int\], got \[8.0, 1\]"),
        ("model.heads=[true]", r"model.heads: expected list\[int\], got \[True\]"),
        ("model.hidden=8.0", "model.hidden: expected int, got 8.0"),
        ("model.residual=yes", "model.residual: expected bool, got 'yes'"),
        ("train.lr=fast", "train.lr: expected finite float, got 'fast'"),
        ("train.lr=nan", "train.lr: expected finite float, got nan"),
        ("train.lr=inf", "train.lr: expected finite float, got inf"),
        ("train.lr=1e999", "train.lr: expected finite float, got inf"),
        ("train.lr=" + "9" * 400, "train.lr: expected finite float, got 999"),
        ("train.lr=true", "train.lr: expected finite float, got True"),
        ("train.lr=0", "train.lr: expected a number above 0, at most 1e.30, got 0"),
        ("train.lr=-0.1", "train.lr: expected a number above 0, at most 1e.30, got -0.1"),
        ("train.lr=1e38", "train.lr: expected a number above 0, at most 1e.30, got 1e.38"),
        ("train.weight_decay=1e39", "train.weight_decay: expected a number from 0 to 1e.30, got 1e.39"),
        ("train.clip=0", "train.clip: expected a number above 0, at most 1e.30, got 0"),
        ("train.weight_decay=-1", "train.weight_decay: expected a number from 0 to 1e.30, got -1"),
        ("train.epochs=0", "train.epochs: expected 1 or more, got 0"),
        ("train.epochs=2.5", "train.epochs: expected int, got 2.5"),
        ("train.epochs=" + "9" * 5000, "train.epochs: expected int, got '999"),
        ("train.patience=-1", "train.patience: expected 1 or more, got -1"),
        ("train.seeds=0", "train.seeds: expected 1 or more, got 0"),
        ("train.control_hidden=0", "train.control_hidden: expected 1 or more, got 0"),
        ("train.metric=acc", "train.metric: expected one of accuracy, .*, got 'acc'"),
        ("train.stop=never", "train.stop: expected 'metric' or 'loss' or 'either' or 'mean' or 'last', got 'never'"),
        ("train.least=-1", "train.least: expected a number from 0 to 3, got -1"),
        ("train.least=4", "train.least: expected a number from 0 to 3, got 4"),
        ("train.least=1.0", "train.least: expected int, got 1.0"),
        (
            "task.name=node",
            "task.name: expected one of graphs, links, nodes, numbers, signs, snapshot_links, .*, got 'node'",
        ),
        (
            "task.name=3",
            "task.name: expected one of graphs, links, nodes, numbers, signs, snapshot_links, .*, got 3",
        ),
        ("task.name=['nodes']", r"task.name: expected one of graphs, links, nodes, .*, got \['nodes'\]"),
        ("task.name=stream_links", "task.name: expected nodes or links for gat, got 'stream_links'"),
        (
            "task.first_target=1",
            "task: expected only the keys batch, fanout, add_edges, .*, got 'first_target'",
        ),
        ("task.batch=1.0", "task.batch: expected int . None, got 1.0"),
        ("train.optimizer=sgd", "train.optimizer: expected 'adam' or 'adamw', got 'sgd'"),
        ("train.controls=uniform", r"train.controls: expected list\[str\], got 'uniform'"),
        ("train.controls=['random']", "expected names among .*, got 'random'"),
        ("train.controls=['uniform', 'uniform']", "train.controls: expected each name once, got 'uniform' 2 times"),
        ("train.knn_share=2.0", "train.knn_share: expected a number between 0 and 1, got 2.0"),
        ("train.knn_share=0", "train.knn_share: expected a number between 0 and 1, got 0"),
        ("train.knn_share=0.2", "train.knn_share: expected it of a system that embeds nodes .*, got 0.2 with gat on"),
        ("expect.paper=83.0", r"expect.paper: expected list\[finite float\], got 83.0"),
        ("expect.controls.random=[1.0]", "expected names among .*, got 'random'"),
        ("expect.controls.uniform=1.0", r"expect.controls: expected dict\[str, list\[finite float\]\], got"),
    ],
)
def test_overrides_that_do_not_fit(written, override, sentence):
    refused(sentence, written(MINIMAL), [override])


@pytest.mark.parametrize("name", ["no_graph", "uniform"])
def test_an_ablation_that_is_called_like_another_control(written, name, monkeypatch):
    monkeypatch.setattr(GAT, "ablations", {name: Ablation("one head", {"heads": [1, 1]})})
    refused(f"ablations: expected names of gat's own, got {name}", written(MINIMAL))


@pytest.mark.parametrize("section", ["paper", "data", "task", "graph", "model", "train", "expect", "tune"])
def test_a_section_that_is_none(written, section):
    text = re.sub(rf"(?ms)^\[{section}\]\n.*?(?=^\[|\Z)", "", MINIMAL)
    refused(rf"recipe: {section}: expected a section \[{section}\], got 3", written(f"{section} = 3\n" + text))


def test_a_title_that_is_none(written):
    refused("recipe: title: expected a string, got 3", written("title = 3\n" + MINIMAL))


@pytest.mark.parametrize(
    "key, sentence",
    [
        ("title", "paper.title: expected str, got no such key"),
        ("year", "paper.year: expected int, got no such key"),
        ("name", "data.name: expected one of .*, got None"),
        ("system", "model.system: expected one of .*, got None"),
        ("metric", "train.metric: expected str, got no such key"),
        ("epochs", "train.epochs: expected int, got no such key"),
        ("lr", "train.lr: expected finite float, got no such key"),
    ],
)
def test_a_required_key_that_is_missing(written, key, sentence):
    refused(sentence, written(without(key)))


def test_a_key_that_the_graph_preparation_requires(written):
    """Meta-paths have no default, and calling the function without them is no way to find out."""
    refused("graph.paths: expected dict, got no such key", written(MINIMAL.replace('"gat"', '"han"')))


def test_an_unknown_section(written):
    refused("expected only the sections .*, got 'tarin'", written(MINIMAL + "[tarin]\n"))


@pytest.mark.parametrize("name", ["gat-coraa", "", "/", "../recipes/gat-cora", "a" * 5000, "gat-cora.tom"])
def test_an_unknown_recipe(name):
    refused(f"recipe: expected one of .*gat-cora, .*, got {re.escape(repr(name))}", name)


def test_a_file_that_is_not_there_or_a_folder(tmp_path):
    refused("recipe: expected a readable file, got .*none.toml: No such file", tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    refused("recipe: expected a readable file, got .*folder.toml: Is a directory", tmp_path / "folder.toml")


@pytest.mark.parametrize(
    "content",
    [
        b"[train\n",
        b"a = b = c\n",
        b"\xff\xfe",
        b"x = 1\nx = 2\n",
        b"x = " + b"9" * 5000,
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_a_file_that_is_not_toml(tmp_path, content):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    refused(f"recipe: expected TOML in {re.escape(str(path))}, got ", path)


@pytest.mark.parametrize("name", available())
def test_every_recipe_comes_back_from_its_own_text(name, written):
    recipe = read(name)
    again = read(written(to_toml(recipe), f"{name}.toml"))
    assert again == recipe
    assert to_toml(again) == to_toml(recipe)
    assert recipe.title and recipe.paper.link.startswith("https://")


def test_text_of_every_kind_comes_back(written):
    strings = ['quote " and \\ and \n\t\b\f\r', "del \x7f, nul-like \x01", "𝔾raph 😀 ä 中", "", "# [x] = 1"]
    recipe = read(written(MINIMAL))
    for string in strings:
        paper = dataclasses.replace(recipe.paper, comment=string)
        paths = {"plain": ["a"], "with space.dot": [], "ключ 😀": ["x", "y"], "": [string]}
        changed = dataclasses.replace(recipe, title=string, paper=paper, graph={"paths": paths})
        content = recipes.tomllib.loads(to_toml(changed))
        assert content["title"] == content["paper"]["comment"] == string
        assert content["graph"]["paths"] == paths


def test_numbers_come_back_exactly(written):
    recipe = read(written(MINIMAL), ["train.lr=1e-05", "train.weight_decay=0.1", "train.clip=1e22"])
    again = read(written(to_toml(recipe)))
    assert again.train == recipe.train
    assert json.loads(json.dumps(again.train.lr)) == 1e-05


# ---- recipes and settings of earlier releases ----

LINKS = """
[data]
name = "enron"
[model]
system = "dysat"
[train]
metric = "mrr"
epochs = 3
lr = 0.01
[paper]
title = "t"
authors = "a"
year = 2020
link = "l"
"""
EARLIER = (
    LINKS
    + """
[protocol]
name = "snapshot_links"
first_target = 4
[graph]
windows = 8
both_ways = false
weight = "none"
"""
)
NOW = (
    LINKS
    + """
[task]
name = "snapshot_links"
first_target = 4
windows = 8
both_ways = false
[graph]
both_ways = false
weight = "none"
"""
)


def earlier(name, overrides=()):
    """(the recipe, what was warned of) of one that an earlier release read without a warning."""
    with pytest.warns(FutureWarning) as caught:
        found = read(name, overrides)
    assert all(warning.filename == __file__ for warning in caught), "who reads it is warned"
    return found, [str(warning.message).split(";")[0] for warning in caught]


def quiet(name, overrides=()):
    """The recipe, about which there is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(name, overrides)


def test_a_recipe_of_an_earlier_release_is_the_same_recipe(written):
    found, warned = earlier(written(EARLIER))
    assert found == quiet(written(NOW))
    assert warned == [
        "[protocol] of a recipe is now called [task]",
        "graph.windows of a recipe on snapshot_links is now called task.windows",
    ]
    # What is written is of this release.
    text = to_toml(found)
    assert "[protocol]" not in text and quiet(written(text)) == found


@pytest.mark.parametrize(
    "key, value",
    [("boundaries", [3.0]), ("windows", 5), ("width", 1.5), ("events", 7), ("column", "step")],
)
def test_how_time_is_cut_moved_from_the_graph_to_the_task(written, key, value):
    text = LINKS + f"[graph]\n{key} = {json.dumps(value)}\n[task]\nname = 'snapshot_links'\n"
    found, warned = earlier(written(text))
    assert found.task == {"name": "snapshot_links", key: value} and found.graph == {}
    assert warned == [f"graph.{key} of a recipe on snapshot_links is now called task.{key}"]
    # No other task cuts time, and its recipes may have keys of these names.
    refused(f"graph: expected only the keys .*, got '{key}'", written(MINIMAL + f"[graph]\n{key} = 1\n"))


def test_settings_of_an_earlier_release_change_the_same_keys(written):
    overrides = ["graph.column=", "graph.windows=8", "protocol.first_target=3", "protocol.ahead=2"]
    found, warned = earlier("dysat-enron", overrides)
    assert found == quiet("dysat-enron", [re.sub("^(graph|protocol)", "task", override) for override in overrides])
    assert "column" not in found.task and "windows" not in found.graph
    assert (found.task["windows"], found.task["first_target"], found.task["ahead"]) == (8, 3, 2)
    assert warned == [
        "graph.column of a recipe on snapshot_links is now called task.column",
        "graph.windows of a recipe on snapshot_links is now called task.windows",
        "protocol.first_target is now called task.first_target",
        "protocol.ahead is now called task.ahead",
    ]
    found, _ = earlier("tgat-movielens", ["protocol.batch=50"])
    assert found.task == {"name": "stream_links", "batch": 50}
    # A file of an earlier release and settings of one.
    found, _ = earlier(written(EARLIER), ["graph.windows=", "graph.width=2.5", "protocol.loss=links"])
    said = {"first_target": 4, "both_ways": False, "width": 2.5, "loss": "links"}
    assert found.task == {"name": "snapshot_links", **said}


@pytest.mark.parametrize("name", available())
def test_the_recipes_of_this_release_warn_of_nothing(name):
    quiet(name)


def test_two_sections_for_one_question(written):
    with pytest.warns(FutureWarning):
        two = "[protocol]\nname = 'nodes'\n[task]\nname = 'nodes'\n"
        refused("recipe: expected one section .task., got .protocol. beside it", written(MINIMAL + two))


def test_a_task_whose_name_is_none(written):
    text = MINIMAL + "[task]\nname = ['nodes']\n[graph]\nself_loops = true\n"
    sentence = r"task.name: expected one of graphs, links, nodes, .*, got \['nodes'\]"
    refused(sentence, written(text))
    refused(sentence, written(text), ["graph.self_loops=false"])


def test_a_protocol_that_is_no_section(written):
    with pytest.warns(FutureWarning):
        refused("recipe: protocol: expected a section .task., got 3", written("protocol = 3\n" + MINIMAL))


def test_the_numbers_of_other_data_are_left_out():
    recipe = read("gat-cora", ["data.name=texas"])
    assert recipe.expect.paper == recipe.expect.ours == [] and recipe.expect.controls == {}
    assert recipe.expect.paper_note == "left out: those of the recipe are of cora"
    assert read("gat-cora", ["data.normalize=none", "data.name=cora"]).expect.paper == [83.0, 0.7]
    redrawn = read("gat-cora", ["data.split=planetoid"])
    assert (
        redrawn.expect.paper == [] and redrawn.expect.paper_note == "left out: those of the recipe are of other splits"
    )
    assert read("acm-texas", ["data.split=3"]).expect.paper == [87.84, 4.4]  # one of the ten that they are of


def test_the_name_of_a_form_stands_for_any_folder(written):
    recipe = read(written(MINIMAL.replace('"cora"', '"geom_gcn"\npath = "somewhere"')))
    assert recipe.data == {"name": "geom_gcn", "path": "somewhere"}
    refused(
        "data.name: expected one of .*acm3025.*folder, geom_gcn, saved, signed, triples, got 'planetoid'",
        "gat-cora",
        ["data.name=planetoid"],
    )


def test_a_recipe_without_a_paper(written):
    """An experiment of one's own: nothing is repeated, and the text that is written says nothing of it either."""
    recipe = read(written(re.sub(r"(?s)\[paper\].*?(?=\[data\])", "", MINIMAL)))
    assert recipe.paper is None and "[paper]" not in to_toml(recipe)
    assert read(written(to_toml(recipe))) == recipe
