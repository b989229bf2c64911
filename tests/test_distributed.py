"""Several machines on one: parts of a graph, the launcher on any script, and RGAT on two parts as on one."""

import contextlib
import importlib.util
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import dgl
import pytest
import torch

from hgat.cli import main
from hgat.data import NodeData, ogb, ogb_samples
from hgat.data.partition import about, partition
from hgat.errors import DataError, OutputError
from hgat.graph import add_inverse
from hgat.train import checkpoint, machines

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "distributed"
MARK = "HGAT_TEST_MARK"  # in the environment of everything that a test starts


# ---- parts ----


@pytest.fixture(scope="module")
def mag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mag")
    ogb_samples.write_sample("ogbn-mag", folder, 1200)
    return ogb.load("ogbn-mag", folder)


def plain(**changes):
    """41 nodes in a ring, with a chord each."""
    src = torch.arange(41).repeat(2)
    graph = dgl.graph((src, torch.cat([torch.arange(41) + 1, torch.arange(41) + 7]) % 41))
    label = torch.arange(41) % 3
    split = {"train": torch.arange(13), "val": torch.arange(13, 20), "test": torch.arange(20, 31)}
    settings = {"feat": {"_N": torch.randn(41, 5)}, "target": "_N", "label": label, **split, **changes}
    return NodeData(name="ring", graph=graph, num_classes=3, class_names=("a", "b", "c"), **settings)


def read(config, ntype, column):
    """A column of the nodes of all parts, in the order of their ids in the task."""
    parts = range(json.loads(config.read_text())["num_parts"])
    columns = [dgl.distributed.load_partition_feats(str(config), part)[0] for part in parts]
    order = torch.cat([of_part[f"{ntype}/orig_id"] for of_part in columns])
    assert torch.equal(order.sort().values, torch.arange(len(order)))
    return torch.cat([of_part[f"{ntype}/{column}"] for of_part in columns])[order.argsort()]


def edges(config, etype):
    """{(source, destination)} of one relation over all parts, by ids in the task, and how many join two parts."""
    pairs, cut = [], 0
    for part in range(json.loads(config.read_text())["num_parts"]):
        graph, _, _, book, _, ntypes, etypes = dgl.distributed.load_partition(str(config), part)
        original = {}
        for ntype in ntypes:
            columns = [dgl.distributed.load_partition_feats(str(config), p)[0] for p in range(book.num_partitions())]
            original[ntype] = torch.cat([of_part[f"{ntype}/orig_id"] for of_part in columns])
        src, dst = graph.edges()
        inside = graph.edata["inner_edge"].bool()
        kinds = graph.edata[dgl.ETYPE] if dgl.ETYPE in graph.edata else torch.zeros(len(src))
        inside &= kinds == etypes.index(etype)
        src, dst = graph.ndata[dgl.NID][src[inside]], graph.ndata[dgl.NID][dst[inside]]
        cut += int((book.nid2partid(src) != book.nid2partid(dst)).sum())
        src, dst = book.map_to_per_ntype(src)[1], book.map_to_per_ntype(dst)[1]
        pairs += zip(original[etype[0]][src].tolist(), original[etype[2]][dst].tolist(), strict=True)
    return sorted(pairs), cut


def test_parts_hold_the_whole_typed_graph(mag, tmp_path):
    cut = partition(mag, 2, tmp_path / "parts", inverse=True)
    assert cut.config == tmp_path / "parts" / "ogbn-mag.json"
    for column, expected in (
        ("feat", mag.feat["paper"]),
        ("label", mag.label),
        ("year", mag.graph.ndata["year"]["paper"]),
    ):
        assert torch.equal(read(cut.config, "paper", column), expected), column
    for part in ("train", "val", "test"):
        mask = read(cut.config, "paper", f"{part}_mask")
        assert torch.equal(mask.nonzero().flatten(), mag.split[part].sort().values)
    graph = add_inverse(mag.graph, self_relation=True)
    joining = 0
    for etype in graph.canonical_etypes:
        found, between = edges(cut.config, etype)
        assert found == sorted(zip(*(end.tolist() for end in graph.edges(etype=etype)), strict=True)), etype
        joining += between
    assert cut.cut == joining and sum(cut.edges) == graph.num_edges()
    assert cut.nodes.keys() == set(graph.ntypes)
    for ntype, counts in cut.nodes.items():
        assert sum(counts) == graph.num_nodes(ntype) and min(counts) > 0.4 * sum(counts)  # balanced by type
    assert about(cut.config) == {
        "data": "ogbn-mag", "target": "paper", "outputs": 349, "notes": list(mag.notes), "graph_name": "ogbn-mag"
    }  # fmt: skip
    assert "orig_id" not in mag.graph.nodes["paper"].data and "label" not in mag.graph.nodes["paper"].data


@pytest.mark.parametrize("method", ["metis", "random"])
@pytest.mark.parametrize("inverse", [False, True])
def test_parts_of_a_plain_graph(tmp_path, method, inverse):
    task = plain()
    cut = partition(task, 3, tmp_path, method=method, inverse=inverse, balance_train=True, balance_edges=True)
    assert torch.equal(read(cut.config, "_N", "feat"), task.feat["_N"])
    assert torch.equal(read(cut.config, "_N", "label"), task.label)
    assert torch.equal(read(cut.config, "_N", "val_mask").nonzero().flatten(), task.val)
    found, joining = edges(cut.config, ("_N", "_E", "_N"))
    expected = {(int(u), int(v)) for u, v in zip(*task.graph.edges(), strict=True)}
    if inverse:
        expected |= {(v, u) for u, v in expected} | {(u, u) for u in range(41)}
    assert found == sorted(expected) and cut.cut == joining > 0
    assert (len(cut.edges), sum(cut.edges), sum(cut.nodes["_N"])) == (3, len(expected), 41)


def test_one_part_has_no_cut(tmp_path):
    cut = partition(plain(), 1, tmp_path)
    assert (cut.cut, cut.edges, cut.nodes) == (0, [82], {"_N": [41]})
    assert torch.equal(read(cut.config, "_N", "label"), plain().label)


@pytest.mark.parametrize(
    "arguments, settings, pattern",
    [
        ((plain(), 0), {}, "--parts: expected 1 or more, got 0"),
        ((plain(), 42), {}, "--parts: expected at most 41, the number of _N, got 42"),
        ((plain(), 2), {"method": "best"}, "--method: expected one of metis, random, got 'best'"),
        ((plain(), 2), {"hops": 0}, "--hops: expected 1 or more, got 0"),
        ((SimpleNamespace(name="wiki"), 2), {}, "wiki: expected a data set of nodes with labels, got SimpleNamespace"),
    ],
)
def test_what_cannot_be_cut(tmp_path, arguments, settings, pattern):
    with pytest.raises(DataError, match=pattern):
        partition(*arguments, tmp_path / "parts", **settings)
    assert list(tmp_path.iterdir()) == []


def test_names_that_dgl_would_split(tmp_path):
    graph = dgl.heterograph({("a", "a/b", "a"): ([0, 1], [1, 0])})
    task = SimpleNamespace(name="odd", graph=graph, target="a")
    with pytest.raises(DataError, match="odd: expected names of types without : / and ~, got 'a/b'"):
        partition(task, 2, tmp_path / "parts")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), IndexError(), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def fail(graph, name, parts, folder, **settings):
        (Path(folder) / "part0").mkdir()
        (Path(folder) / "part0" / "graph.dgl").touch()
        raise error

    monkeypatch.setattr(dgl.distributed, "partition_graph", fail)
    with pytest.raises((OutputError, DataError, KeyboardInterrupt)) as caught:
        partition(plain(), 2, tmp_path / "parts")
    assert list(tmp_path.iterdir()) == []
    texts = {OSError: "to, got .*parts: No space left on device", IndexError: "of every type in every part"}
    assert re.search(texts.get(type(error), ""), str(caught.value))


def test_a_folder_with_content_is_left_alone(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(OutputError, match="--out: expected a new or an empty folder, got .*, which has content"):
        partition(plain(), 2, tmp_path)
    with pytest.raises(OutputError, match="--out: expected a new or an empty folder, got .*mine, which is none"):
        partition(plain(), 2, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_a_killed_partition_left_is_overwritten(tmp_path):
    (tmp_path / ".parts.part" / "part9").mkdir(parents=True)
    partition(plain(), 2, tmp_path / "parts")
    assert sorted(os.listdir(tmp_path)) == ["parts"]
    assert sorted(os.listdir(tmp_path / "parts")) == ["part0", "part1", "ring.json"]


def test_a_file_of_another_kind(tmp_path):
    with pytest.raises(DataError, match="expected the file NAME.json of a partition, got .*none: No such file"):
        about(tmp_path / "none")
    (tmp_path / "other.json").write_text('{"graph_name": "x"}')
    with pytest.raises(DataError, match="expected a file that `hgat partition` wrote, got .*other.json"):
        about(tmp_path / "other.json")


def test_the_command(tmp_path, capsys):
    arguments = ["partition", "ogbn-mag", "--sample", "--parts", "2", "--out", str(tmp_path / "parts")]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "parts" / "ogbn-mag.json").read_text())
    assert re.search(rf"(?m)^ogbn-mag: {content['num_edges']:,} edges, of which \d+\.\d % join two parts$", out)
    for part in range(2):
        papers = content["node_map"]["paper"][part]
        inside = sum(spans[part][1] - spans[part][0] for spans in content["edge_map"].values())
        assert re.search(rf"(?m)^  part {part}: {inside:,} edges; nodes: .*, {papers[1] - papers[0]:,} paper$", out)
    assert re.search(r"(?m)^  took \d+\.\d s; memory \d\.\d\d GiB at its peak, \d\.\d\d GiB of it held before$", out)
    assert out.endswith(f"\n{tmp_path / 'parts' / 'ogbn-mag.json'}\n")
    assert main(arguments) == 2
    assert re.fullmatch("hgat: --out: expected a new or an empty folder, got .*\n", capsys.readouterr().err)


# ---- the launcher ----

# Stands in for a training script: says who it is, starts a process of its own, and does what the test wants.
ACTOR = """
import json, os, signal, subprocess, sys, time
folder, plan = sys.argv[1], json.loads(sys.argv[2])
server = os.environ["DGL_ROLE"] == "server"
name = f"server {os.environ['DGL_SERVER_ID']}" if server else f"trainer {os.environ['RANK']}"
if plan.get("child", True):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(50)"])
open(f"/dev/shm/{os.environ['HGAT_SHARED_MEMORY']}{name}", "w").close()
print(name, "was here", end="", flush=True)
hosts = open(os.environ["DGL_IP_CONFIG"]).read()
with open(os.path.join(folder, f".{name}"), "w") as file:
    json.dump({"pid": os.getpid(), "hosts": hosts, "environment": dict(os.environ)}, file)
os.rename(os.path.join(folder, f".{name}"), os.path.join(folder, name))
action = plan.get(name, plan.get("others", "sleep"))
while len([name for name in os.listdir(folder) if name[0] in "st"]) < plan["count"]:
    time.sleep(0.01)
if action == "sleep":
    time.sleep(50)
while action == "talk":
    print(1000 * "x")
if action < 0:
    time.sleep(0.1)  # others may be quicker to say what they suffer from it
    os.kill(os.getpid(), -action)
print("\\nlast words", end="", flush=True)
sys.exit(action)
"""


def free_port():
    """The first of ten ports in a row that nobody uses, below those that systems give away."""
    while True:
        first = random.randrange(10_000, 30_000, 10)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 10):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


@pytest.fixture
def launch(tmp_path):
    """Starts launch.py with a file of hosts, and looks afterwards that nothing of it is left."""
    port = free_port()
    started = []

    def start(
        script,
        *arguments,
        hosts=(f"127.0.0.1 {port}", f"127.0.0.1 {port + 5}"),
        config=None,
        options=(),
        launcher=FOLDER / "launch.py",
    ):
        (tmp_path / "hosts").write_text("\n".join(hosts) + "\n")
        if config is None:
            config = tmp_path / "parts.json"
            config.write_text(json.dumps({"num_parts": len(hosts)}))
        command = [sys.executable, launcher, "--hosts", tmp_path / "hosts", "--config", config]
        environment = {**os.environ, MARK: str(tmp_path), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*map(str, (*command, *options, script, *arguments))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    assert wait(lambda: not left(tmp_path), 10), left(tmp_path)


def left(mark):
    """The command lines of what runs with this mark in its environment."""
    found = []
    for pid in processes(mark):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def processes(mark):
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"{MARK}={mark}" in environment(entry.name)
    ]


def environment(pid):
    """Lines of the environment, none of a process that is no more or another user's."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return []


def wait(condition, seconds):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


NAMES = ["server 0", "server 1", "trainer 0", "trainer 1"]


@pytest.fixture
def act(launch, tmp_path):
    """The launcher on the script that does what the test wants."""
    (tmp_path / "actor.py").write_text(ACTOR)
    folder = tmp_path / "actors"
    folder.mkdir()

    def start(plan, count=4, **settings):
        process = launch("actor.py", folder, json.dumps({"count": count, **plan}), **settings)
        return process, folder

    return start


def actor(folder, name):
    return json.loads((folder / name).read_text())


def memory_of(folder):
    """Files in shared memory that the actors made."""
    prefixes = {actor(folder, name)["environment"]["HGAT_SHARED_MEMORY"] for name in os.listdir(folder)}
    return [path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(tuple(prefixes))]


@pytest.mark.slow
def test_everyone_is_told_its_place(act, tmp_path):
    settings = ["--servers", 2, "--samplers", 3, "--trainers", 2]
    process, folder = act({"others": 0}, count=8, options=settings)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    names = [f"{role} {number}" for role in ("server", "trainer") for number in range(4)]
    said = [(name, f"{name} was here") for name in names] + [(name, "last words") for name in names]
    assert sorted(out.splitlines()) == sorted(f"[{name}] {text}" for name, text in said)
    hosts = (tmp_path / "hosts").read_text()
    first = int(hosts.split()[1])
    prefixes = {}
    for name in names:
        found, number = actor(folder, name), int(name.split()[1])
        own = found["environment"]
        assert found["hosts"] == hosts and not Path(own["DGL_IP_CONFIG"]).exists()
        shared = {
            "DGL_DIST_MODE": "distributed", "DGL_CONF_PATH": str(tmp_path / "parts.json"), "DGL_NUM_SERVER": "2",
            "DGL_NUM_CLIENT": "16", "DGL_NUM_SAMPLER": "3", "DGL_GRAPH_FORMAT": "csc", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(first + 2), "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "HGAT_MACHINE": str(number // 2),
            "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        assert {key: own[key] for key in shared} == shared
        if name.startswith("server"):
            assert (own["DGL_ROLE"], own["DGL_SERVER_ID"]) == ("server", str(number)) and "RANK" not in own
        else:
            assert (own["DGL_ROLE"], own["RANK"], own["LOCAL_RANK"]) == ("client", str(number), str(number % 2))
        prefixes.setdefault(own["HGAT_SHARED_MEMORY"], set()).add(number // 2)
    assert sorted(prefixes.values()) == [{0}, {1}] and memory_of(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, action, others, sentence",
    [
        ("trainer 1", 3, "talk", "trainer 1 on 127.0.0.1 ended with status 3"),
        ("trainer 0", -signal.SIGKILL, "sleep", "trainer 0 on 127.0.0.1 was killed by SIGKILL"),
        ("server 1", -signal.SIGSEGV, "sleep", "server 1 on 127.0.0.1 was killed by SIGSEGV"),
        ("server 0", -signal.SIGKILL, 1, "server 0 on 127.0.0.1 was killed by SIGKILL"),
    ],
)
def test_when_one_dies_all_are_ended(act, tmp_path, name, action, others, sentence):
    """What the others say of it is no cause."""
    process, folder = act({name: action, "others": others})
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, f"launch: {sentence}; all other processes were ended\n")
    assert f"[{name}] {name} was here\n" in out
    assert left(tmp_path) == [] and memory_of(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, status, said",
    [
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGINT, 130, "launch: stopped; all other processes were ended\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_when_the_launcher_ends_all_end(act, tmp_path, number, status, said):
    process, folder = act({})
    assert wait(lambda: sorted(filter(visible, os.listdir(folder))) == NAMES, 20)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (status, said)
    assert wait(lambda: left(tmp_path) == [] and memory_of(folder) == [], 5), left(tmp_path)


@pytest.mark.slow
def test_when_a_keeper_is_killed_all_end_and_the_next_start_sweeps(act, tmp_path):
    process, folder = act({"child": False})
    assert wait(lambda: sorted(filter(visible, os.listdir(folder))) == NAMES, 20)
    os.kill(parent(actor(folder, "trainer 1")["pid"]), signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    sentence = "launch: lost 127.0.0.1, where server 1, trainer 1 ran; all other processes were ended\n"
    assert (process.returncode, err) == (1, sentence)
    assert wait(lambda: left(tmp_path) == [], 5), left(tmp_path)
    dead = memory_of(folder)
    assert {name.partition("-")[2].split("-", 1)[1] for name in dead} == {"hosts", "lock", "server 1", "trainer 1"}
    for path in folder.iterdir():
        path.unlink()
    process, folder = act({})
    assert wait(lambda: sorted(filter(visible, os.listdir(folder))) == NAMES, 20)
    living = memory_of(folder)
    assert len(living) == 8
    assert not any((Path("/dev/shm") / name).exists() for name in dead)
    other, folder = act({"others": 0})
    assert other.wait(20) == 0
    assert all((Path("/dev/shm") / name).exists() for name in living), "those of the living are left alone"


SSH = """
import os, subprocess, sys, threading
with open("calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
with open(f"pid-{sys.argv[2]}", "w") as file:
    file.write(str(os.getpid()))
print("Welcome!", flush=True)
there = subprocess.Popen(["sh", "-c", sys.argv[3]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
def up():
    while content := os.read(0, 65536):
        there.stdin.write(content)
    there.stdin.close()
threading.Thread(target=up, daemon=True).start()
while content := os.read(there.stdout.fileno(), 65536):
    os.write(1, content)
sys.exit(there.wait())
"""


@pytest.mark.slow
def test_other_hosts_over_ssh(act, tmp_path):
    """`ssh` is a script here that passes on to this machine; the addresses are reserved for documents."""
    (tmp_path / "ssh.py").write_text(SSH)
    hosts, options = ["203.0.113.1", "203.0.113.2 4000"], ["--ssh", f"{sys.executable} ssh.py -q"]
    process, folder = act({"others": 0}, hosts=hosts, options=options)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out.count("[203.0.113.1] Welcome!\n") == out.count("[203.0.113.2] Welcome!\n") == 1
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sorted(line.partition(" cd ")[0] for line in calls) == ["-q 203.0.113.1", "-q 203.0.113.2"]
    assert actor(folder, "server 1")["hosts"] == "203.0.113.1 30050\n203.0.113.2 4000\n"
    assert actor(folder, "trainer 1")["environment"]["MASTER_ADDR"] == "203.0.113.1"
    for path in folder.iterdir():
        path.unlink()
    process, folder = act({}, hosts=hosts, options=options)
    assert wait(lambda: sorted(filter(visible, os.listdir(folder))) == NAMES, 20)
    os.kill(int((tmp_path / "pid-203.0.113.2").read_text()), signal.SIGKILL)  # the connection breaks
    _, err = process.communicate(timeout=20)
    sentence = "launch: lost 203.0.113.2, where server 1, trainer 1 ran; all other processes were ended\n"
    assert (process.returncode, err) == (1, sentence)
    assert wait(lambda: left(tmp_path) == [], 5), left(tmp_path)


def visible(name):
    return not name.startswith(".")


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--python", "/no/python"], "could not start: .* No such file or directory: '/no/python'"),
        (["--workspace", "/no/folder"], r"server \d on 127.0.0.1 ended with status 127"),
    ],
)
def test_what_cannot_be_started(act, tmp_path, options, sentence):
    process, _ = act({}, options=options)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1 and re.fullmatch(f"launch: {sentence}; all other processes were ended\n", err), err
    assert ("No such file or directory: '/no/folder'" in out) == ("--workspace" in options)


@pytest.mark.slow
def test_who_does_not_end_after_the_others_is_ended(act, tmp_path):
    code = "import launch, sys; launch.TAIL = 0.3; sys.exit(launch.main())"
    (tmp_path / "short.py").write_text(f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n{code}\n")
    process, _ = act({"others": 0, "server 1": "sleep"}, launcher=tmp_path / "short.py")
    _, err = process.communicate(timeout=20)
    sentence = "launch: server 1: expected to end within 0 s of the others, still running"
    assert (process.returncode, err) == (1, f"{sentence}; all other processes were ended\n")


@pytest.mark.parametrize(
    "hosts, options, sentence",
    [
        (["127.0.0.1"], [], "hosts: expected 2 lines, one for each part of .*parts.json, got 1"),
        (["127.0.0.1 1", "127.0.0.1 two"], [], r"hosts: expected lines `address \[port\]`, got '127.0.0.1 two'"),
        (["127.0.0.1 1", "nowhere.invalid"], [], r"hosts: expected lines `address \[port\]`, got 'nowhere.invalid'"),
        (["127.0.0.1", "203.0.113.1"], [], "hosts: expected addresses that all hosts can reach, got 127.0.0.1"),
        (["127.0.0.1", "127.0.0.1"], [], "hosts: expected ports apart on one address, 2 for each line"),
        (["127.0.0.1 10", "127.0.0.1 11"], [], "hosts: expected ports apart on one address, 2 for each line"),
        (["127.0.0.1 10", "127.0.0.1 13"], ["--servers", "4"], "hosts: expected ports apart on one address, 5 for"),
        (["127.0.0.1 10", "127.0.0.1 13"], ["--trainers", "0"], "expected --trainers and --servers of 1 or more and"),
        (["127.0.0.1"], ["--config", "none"], "expected a file of hosts and the NAME.json of a partition, got: "),
        (["127.0.0.1 two words"], [], r"hosts: expected lines `address \[port\]`, got '127.0.0.1 two words'"),
    ],
)
def test_wrong_hosts(launch, tmp_path, hosts, options, sentence):
    (tmp_path / "parts.json").write_text('{"num_parts": 2}')
    process = launch("actor.py", hosts=hosts, config=tmp_path / "parts.json", options=options)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert re.match(f"launch: {f'{tmp_path}/' if sentence.startswith('hosts') else ''}{sentence}", err), err


# ---- training ----


@pytest.fixture(scope="module")
def parts(mag, tmp_path_factory):
    """The configurations of one part and of two."""
    folder = tmp_path_factory.mktemp("parts")
    return {count: partition(mag, count, folder / str(count), inverse=True).config for count in (1, 2)}


@pytest.mark.slow
def test_two_parts_learn_as_one_and_nothing_saved_is_lost(launch, parts, tmp_path):
    """Two servers, two trainers. A trainer is killed while it trains, then a server that has just loaded its part."""
    spec = importlib.util.spec_from_file_location("distributed_rgat", FOLDER / "rgat.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = ["--lr", "0.01", "--epochs", "7", "--batch", "128", "--out", str(tmp_path / "one")]
    one = module.main(["--config", str(parts[1]), *arguments])["test"][0]

    out, common = tmp_path / "out", ["--lr", "0.01", "--batch", "64", "--out", "out"]
    arguments = [FOLDER / "rgat.py", *common, "--epochs", "500", "--resume"]
    process = launch(*arguments, config=parts[2], options=["--samplers", "1"])
    assert wait(lambda: saved(out) > 0 or process.poll() is not None, 120)
    kill(process, tmp_path, "RANK=1", "trainer 1")

    process = launch(*arguments, config=parts[2])
    assert wait(lambda: memory_with_parts(tmp_path) or process.poll() is not None, 120)
    prefix = memory_with_parts(tmp_path)
    kill(process, tmp_path, "DGL_SERVER_ID=0", "server 0")
    assert list(Path("/dev/shm").glob(f"{prefix}*")) == []

    before = saved(out)
    epochs = max(7, before + 1)
    process = launch(FOLDER / "rgat.py", *common, "--epochs", epochs, "--resume", config=parts[2])
    text, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, ""), text
    assert [int(epoch) for epoch in re.findall(r"epoch (\d+):", text)] == list(range(before + 1, epochs + 1))
    two = float(re.search(r"Final Test: (\d+\.\d+)", text)[1])
    assert min(one, two) > 85 and abs(one - two) < 6, (one, two)


@pytest.mark.slow
def test_a_trainer_that_fails_does_not_wait_and_has_names_of_its_own():
    """DGL's clients meet at exit, where one that failed would wait for ever."""
    prefix = f"hgat-test-{os.getpid()}-"
    code = """
        import atexit, os, sys, time
        import hgat, dgl
        from hgat.train import machines
        atexit.register(time.sleep, 100)
        dgl.distributed.initialize = print
        machines.dist.init_process_group = lambda backend: setattr(sys, "excepthook", None)
        print(machines.enter().size)
        modules = [machines.kvstore, machines.dist_graph, machines.graph_partition_book, machines.shared_mem_utils]
        kept = [module.empty_shared_mem(f"/{module.__name__}", True, (5,), "int64") for module in modules]
        kept.append(dgl.graph([(0, 1)]).shared_memory("graph", formats="csc"))
        assert machines.dist_graph.heterograph_index.create_heterograph_from_shared_memory("graph")[0] is not None
        assert machines.dist_graph.exist_shared_mem_array("/dgl.distributed.kvstore")
        print(machines.rpc_client.get_local_machine_id({}))
        raise hgat.HgatError("partition: expected\\na thing")
    """
    own = {"DGL_DIST_MODE": "distributed", "DGL_ROLE": "client", "DGL_IP_CONFIG": "HOSTS", "HGAT_MACHINE": "7"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=60, env={**os.environ, **own, "HGAT_SHARED_MEMORY": prefix},
    )  # fmt: skip
    made = sorted(path.name.removeprefix(prefix) for path in Path("/dev/shm").glob(f"{prefix}*"))
    for name in made:
        (Path("/dev/shm") / f"{prefix}{name}").unlink()
    assert (done.returncode, done.stdout) == (2, "HOSTS\n1\n7\n"), done.stderr
    assert done.stderr.splitlines()[-1] == "hgat: partition: expected a thing"
    names = ("kvstore", "dist_graph", "graph_partition_book", "shared_mem_utils")
    assert {"graph", *(f"dgl.distributed.{name}" for name in names)} <= set(made)


@pytest.mark.slow
def test_a_trainer_does_not_outlive_its_samplers(monkeypatch, capsys):
    context = multiprocessing.get_context("spawn")
    samplers = [context.Process(target=time.sleep, args=(seconds,)) for seconds in (0, 50)]
    monkeypatch.setattr(machines.dist_context, "SAMPLER_POOL", SimpleNamespace(process_list=samplers))
    monkeypatch.setattr(machines.os, "_exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
    for sampler in samplers:
        sampler.start()
    samplers[0].join()
    threading.Timer(0.2, samplers[1].kill).start()
    with pytest.raises(SystemExit) as end:
        machines._watch_samplers()
    assert end.value.code == 1 and not any(sampler.is_alive() for sampler in samplers)
    assert capsys.readouterr().err == "hgat: sampler: expected to end with its trainer, ended with -9\n"


def kill(process, mark, own, name):
    """`kill -9` of a process of the launcher's, and what it is to say of that."""
    assert process.poll() is None, process.communicate()
    # The first, because what it started has the same environment.
    os.kill(min(pid for pid in processes(mark) if own in environment(pid)), signal.SIGKILL)
    _, err = process.communicate(timeout=15)
    sentence = f"launch: {name} on 127.0.0.1 was killed by SIGKILL; all other processes were ended\n"
    assert (process.returncode, err) == (1, sentence)
    assert left(mark) == []


def memory_with_parts(mark):
    """The names in shared memory of the first machine's start, once its server has put its part there."""
    for pid in processes(mark):
        own = dict(line.split("=", 1) for line in environment(pid) if "=" in line)
        prefix = own.get("HGAT_SHARED_MEMORY")
        if own.get("DGL_SERVER_ID") == "0" and (Path("/dev/shm") / f"{prefix}node~paper~val_mask-kvdata-").exists():
            return prefix
    return None


def saved(out):
    """The last epoch of the checkpoint, 0 if there is none."""
    if not (out / "progress.safetensors").exists():
        return 0
    return checkpoint.load_tensors(out / "progress.safetensors")[1]["running"]["epoch"]
