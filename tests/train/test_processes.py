"""Several processes: the same training as one, a failure that ends the job, and going on after it.

torchrun starts this file as a script; `several` below is what its processes then do.
"""

import copy
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import hgat
from hgat.data import ogb, ogb_samples
from hgat.errors import RecipeError, TrainingError
from hgat.train import Processes, Seeds, checkpoint, seeds

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ogb" / "products.py"
SMALL = "--hidden 64 --heads 4 --layers 2 --batch 256 --lr 0.01 --epochs 3".split()
SEEDS, STEPS = 2, 6  # runs, and the steps of an epoch


def example():
    sys.path.append(str(EXAMPLE.parent))  # as where it is started
    spec = importlib.util.spec_from_file_location("ogb_products", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losses(out):
    """Loss and scores of every epoch of products.py, in float64, where nothing is drawn but the order."""
    module, found = example(), []
    load, record = ogb.load, seeds._Run.record

    def load_double(*arguments, **options):
        data = load(*arguments, **options)
        object.__setattr__(data, "feat", {ntype: x.double() for ntype, x in data.feat.items()})
        return data

    def recorded(self, loss, **scores):
        found.append([loss, *scores.values()])
        record(self, loss, **scores)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.ogb, "load", load_double)
        patch.setattr(seeds._Run, "record", recorded)
        torch.set_default_dtype(torch.float64)
        try:
            module.main(["--sample", "--fanout", "-1", "--dropout", "0", "--epochs", "3", "--out", str(out)])
        finally:
            torch.set_default_dtype(torch.float32)
    return found


def layers(processes):
    """{layer: largest difference between its gradients on shares of a batch and on the whole}, in float64."""
    import dgl  # after hgat, where torchrun starts this file

    generator = torch.Generator().manual_seed(0)
    one = dgl.add_self_loop(dgl.graph(tuple(torch.randint(23, (2, 101), generator=generator)), num_nodes=23))
    one.ndata["type"], one.edata["type"] = torch.arange(23) % 2, torch.arange(one.num_edges()) % 3
    one.edata["x"] = torch.randn(one.num_edges(), 2, generator=generator).double()
    typed = dgl.heterograph({("a", "r", "a"): one.edges(), ("b", "s", "a"): (torch.arange(11), torch.arange(11))})
    paths = dgl.heterograph({("a", "r", "a"): one.edges(), ("a", "s", "a"): (torch.arange(23), torch.arange(23))})
    feat = {ntype: torch.randn(count, 7, generator=generator).double() for ntype, count in (("a", 23), ("b", 11))}
    cotangent = torch.randn(23, 15, generator=generator).double()
    sampler, seeds = dgl.dataloading.MultiLayerFullNeighborSampler(1), torch.arange(22)
    nn, found = hgat.nn, {}
    for model, graph, call in [
        (nn.GATConv(7, 5, 3), one, lambda model, block, x: model(block, x["a"])),
        (nn.GATv2Conv(7, 5, 3), one, lambda model, block, x: model(block, x["a"])),
        (nn.EdgeGATConv(7, 2, 5, 3), one, lambda model, block, x: model(block, x["a"], block.edata["x"])),
        (nn.RGATConv(7, 5, 3, typed.canonical_etypes), typed, lambda model, block, x: model(block, x)["a"]),
        (
            nn.HGTConv(7, 5, 3, 2, 3, 0.0),
            one,
            lambda model, block, x: model(block, x["a"], block.srcdata["type"], block.edata["type"]),
        ),
        (nn.HANConv(7, 5, 3, 2, semantic="per_node"), paths, lambda model, block, x: model(block, x["a"])),
    ]:
        with torch.no_grad():  # wrapping gives all processes the parameters of the first
            for parameter in model.double().parameters():
                parameter.add_(processes.rank)
        parallel = processes.wrap(model)
        whole = copy.deepcopy(model)

        def gradients(model, ids, graph=graph, call=call, **options):
            model.zero_grad()
            ids = {"a": ids} if len(graph.ntypes) > 1 else ids
            ((inputs, outputs, (block,)),) = dgl.dataloading.DataLoader(graph, ids, sampler, **options)
            inputs, outputs = (at if isinstance(at, dict) else {"a": at} for at in (inputs, outputs))
            out = call(model, block, {ntype: feat[ntype][at] for ntype, at in inputs.items()})
            (out.flatten(1) * cotangent[outputs["a"]]).sum(1).mean().backward()
            return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

        ours = gradients(parallel, processes.shares(seeds, 22), batch_size=11, use_ddp=True)
        found[type(model).__name__] = (ours - gradients(whole, seeds, batch_size=22)).abs().max().item()
    return found


def inference(processes):
    """Largest difference between products.py's exact inference on all processes and on one alone, in float64."""
    import dgl

    torch.manual_seed(0)
    model, x = example().Net(hgat.nn.GATConv, 7, 12, 5, 2, 3, 0.5).double(), torch.randn(103, 7).double()
    graph = dgl.add_self_loop(dgl.graph(tuple(torch.randint(103, (2, 601))), num_nodes=103))
    alone = Processes()
    alone.rank, alone.size = 0, 1
    torch.set_default_dtype(torch.float64)
    try:
        ours, expected = (model.inference(graph, x, 10, which) for which in (processes, alone))
    finally:
        torch.set_default_dtype(torch.float32)
    return (ours - expected).abs().max().item()


def several(root, folder):
    """What torchrun starts: results into the folder, then process 1 fails in the middle of an epoch."""
    with Processes() as processes:  # products.py finds it there
        rank = processes.rank
        (folder / f"pid{rank}").write_text(str(os.getpid()))
        found = {"layers": layers(processes), "sum": processes.sum(torch.tensor([1.0 + rank])).item()}
        found["inference"] = inference(processes)
        found["losses"] = losses(folder / "losses")
        options = ["--root", str(root), "--runs", str(SEEDS), *SMALL]
        module = example()
        module.main([*options, "--out", str(folder / "whole")])
        (folder / f"found{rank}.json").write_text(json.dumps(found))

        real, calls = torch.nn.functional.cross_entropy, []

        def cross_entropy(*arguments):
            calls.append(1)
            if rank == 1 and len(calls) == 4 * STEPS + 3:  # in the second epoch of the second run
                (folder / "failed").write_text(str(time.time()))
                raise ValueError("no more\nof this")
            return real(*arguments)

        torch.nn.functional.cross_entropy = cross_entropy
        seeds.SAVE_EVERY = -1.0
        module.main([*options, "--out", str(folder / "killed")])


def launch(*arguments):
    """torchrun with two processes: (exit status, stdout, stderr)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([str(a) for a in command], **pipes) as job:
        try:
            out, err = job.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            job.terminate()  # and torchrun its processes
            out, err = job.communicate()
        return job.returncode, out, err


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(the folder of results, torchrun's exit status and stderr, how long it went on after the failure)."""
    folder = tmp_path_factory.mktemp("several")
    ogb_samples.write_sample("ogbn-products", folder / "data")
    status, _, err = launch(__file__, folder / "data", folder)
    after = time.time()
    assert (folder / "failed").exists(), err
    return folder, status, err, after - float((folder / "failed").read_text())


def results(folder):
    return [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # DGL's advice on CPU affinity
def test_two_processes_train_as_one_with_the_same_batches(done, tmp_path):
    first, second = results(done[0])
    assert first["losses"] == second["losses"] and first["sum"] == second["sum"] == 3.0
    alone = losses(tmp_path)
    torch.testing.assert_close(torch.tensor(first["losses"]), torch.tensor(alone), rtol=1e-9, atol=1e-9)
    names = [checkpoint.load_tensors(out / seeds.MODEL)[0] for out in (done[0] / "losses", tmp_path)]
    for name, weight in names[0].items():
        torch.testing.assert_close(weight, names[1][name], rtol=1e-7, atol=1e-7)


@pytest.mark.slow
def test_inference_is_divided_and_the_same(done):
    assert max(found["inference"] for found in results(done[0])) < 1e-12


@pytest.mark.slow
def test_gradients_of_the_layers_are_those_of_the_whole_batch(done):
    for found in results(done[0]):
        assert len(found["layers"]) == 6 and max(found["layers"].values()) < 1e-12, found


@pytest.mark.slow
def test_a_failed_process_ends_the_job_with_one_sentence(done):
    folder, status, err, seconds = done
    assert status != 0 and seconds < 30
    sentence = "hgat.errors.TrainingError: process 1 of 2 failed: ValueError: no more of this"
    # torchrun's last words: the first failure.
    assert err.rpartition("Root Cause")[2].strip(" =\n").endswith(sentence), err
    for rank in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / f"pid{rank}").read_text()), 0)


@pytest.mark.slow
def test_resume_goes_on_to_the_same_result_and_process_0_alone_prints(done):
    folder = done[0]
    options = ["--root", folder / "data", "--runs", SEEDS, *SMALL, "--out", folder / "killed", "--resume"]
    status, out, err = launch(EXAMPLE, *options)
    assert status == 0, err
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:3]] == ["run 1, epoch 2", "run 1, epoch 3", "All runs"]
    assert len(lines) == 6
    for name in (seeds.MODEL, seeds.PROGRESS):
        (tensors, about), (expected, about_whole) = (
            checkpoint.load_tensors(folder / out / name) for out in ("killed", "whole")
        )
        folders = {"settings": None, "crc32": None}  # the settings name the folder, and the sum covers them
        assert about | folders == about_whole | folders
        assert tensors.keys() == expected.keys() and all(torch.equal(tensors[k], expected[k]) for k in tensors)


@pytest.mark.slow
def test_another_number_of_processes_does_not_go_on(done):
    folder = done[0] / "whole"
    settings = checkpoint.load_tensors(folder / seeds.PROGRESS)[1]["settings"]
    assert settings.pop("processes") == 2
    with pytest.raises(RecipeError, match="--resume: expected the settings of the run in .*, got others"):
        Seeds(folder, SEEDS, resume=True, settings=settings)


def test_shares_are_the_batches_of_one_process(monkeypatch):
    ids = torch.arange(1000, 1000 + 61)
    np.random.seed(3)
    alone = ids[torch.from_numpy(np.random.permutation(61))]
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, source: None)
    processes = Processes()
    np.random.seed(3)
    assert torch.equal(processes.shares(ids, 12), alone)
    processes.size = 3
    np.random.seed(3)
    pieces = processes.shares(ids, 12).view(3, 20)  # 61 = 3 * 20 + 1: one is left out
    for step in range(5):
        together = pieces[:, 4 * step : 4 * step + 4].flatten()
        assert torch.equal(together, alone[12 * step : 12 * step + 12][: len(together)])
    parts = []
    for processes.rank in range(3):
        parts += processes.part(ids, 12).split(12)
    assert [len(part) for part in parts] == [12, 12, 12, 12, 12, 1]
    assert torch.equal(torch.cat(parts).sort().values, ids)
    processes.rank = 2
    assert len(processes.part(ids[:20], 12)) == 0
    with pytest.raises(RecipeError, match="batch: expected a multiple of the 3 processes, got 10"):
        processes.shares(ids, 10)
    with pytest.raises(RecipeError, match="ids: expected one or more for each of 3 processes, got 2"):
        processes.shares(ids[:2], 12)


def test_one_process_is_left_as_it_is(capsys):
    model = torch.nn.Linear(2, 3)
    with Processes() as processes:
        assert (processes.rank, processes.size, str(processes.device)) == (0, 1, "cpu")
        assert processes.wrap(model) is model
        assert processes.mean(torch.tensor(3.0)) == processes.sum(torch.tensor(3.0)) == 3
        processes.wait()
        processes.print("here")
    assert capsys.readouterr().out == "here\n" and not torch.distributed.is_initialized()
    with pytest.raises(ZeroDivisionError), Processes():  # its own error, not a process's
        raise ZeroDivisionError


def test_process_0_reads_before_the_others(monkeypatch):
    for rank, expected in enumerate((["read", "wait"], ["wait", "read"])):
        processes, done = Processes(), []
        processes.rank = rank
        monkeypatch.setattr(processes, "wait", lambda done=done: done.append("wait"))
        with processes.first():
            done.append("read")
        assert done == expected
    processes.rank, done[:] = 0, []
    with pytest.raises(ZeroDivisionError), processes.first():  # the others learn of it by the end of the job
        raise ZeroDivisionError
    assert done == []


def test_a_launch_has_one_context_and_others_inside_it(monkeypatch):
    monkeypatch.setattr(Processes, "_over", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launched = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with Processes() as processes:
        assert isinstance(processes.wrap(torch.nn.Linear(2, 3)), torch.nn.parallel.DistributedDataParallel)
        with Processes() as inner:
            assert (inner.rank, inner.size) == (0, 1)
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()
    with pytest.raises(RecipeError, match="expected one context in a launch, got a second"), Processes():
        pass


@pytest.mark.parametrize(
    ("environment", "device", "message"),
    [
        ({"RANK": "0"}, "cpu", r"expected RANK below WORLD_SIZE, .*, got RANK=0, WORLD_SIZE=None, LOCAL_RANK=None"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "cpu", "got RANK=2, WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "two", "LOCAL_RANK": "0"}, "cpu", "WORLD_SIZE=two"),
        ({}, "cuda:99", "device: expected cuda:99 for process 0, got"),
        ({"RANK": "99", "WORLD_SIZE": "100", "LOCAL_RANK": "99"}, "cuda", "expected cuda:99 for process 99"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "cuda:0", "expected cuda without a number for 2 proc"),
    ],
)
def test_wrong_surroundings_are_one_sentence(monkeypatch, environment, device, message):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=message):
        Processes(device)


def test_a_group_that_cannot_be_made_is_one_sentence(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(TrainingError, match="process 0 of 2 failed: ValueError: .*MASTER_ADDR"), Processes():
        pass


def test_process_0_alone_touches_the_folder(monkeypatch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / seeds.MODEL).touch()
    monkeypatch.setattr(seeds, "_rank", lambda: 1)
    for name in ("out", "new"):
        for run in Seeds(tmp_path / name, 1):
            model = torch.nn.Linear(1, 1)
            for _ in run.epochs(2, model, torch.optim.Adam(model.parameters())):
                run.record(0.0, val=50.0)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", seeds.MODEL]
    assert (tmp_path / "out" / seeds.MODEL).stat().st_size == 0


def test_processes_that_do_not_know_of_one_another_do_not_share_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="seeds: expected one process, or hgat.train.Processes around the script"):
        Seeds(tmp_path, 1)


if __name__ == "__main__":
    several(*map(Path, sys.argv[1:]))
