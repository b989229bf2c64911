"""Attention on a GPU: right first, then fast. `python -m benchmarks gpu`, one script for half an hour on a card.

What matters most comes first, so that a run that is cut short has said it:

- right: every operator in every type on graphs of all kinds, outputs and gradients, beside the same inputs in float64
  on the backend `torch` (which drops the same edges, by the same numbers); the same bits twice.
- operators: on ogbn-arxiv's and ogbn-products' shapes and on ogbn-mag's papers, power-law and uniform degrees, beside
  DGL (its CUDA build, where there is one), PyG, and the same steps in plain PyTorch ("composed": DGL's own steps, as
  gathers and index sums). "of bytes" divides by the time in which the card copies the bytes that a forward pass has to
  read and write without any cache: per edge an index, its scores and its rows, per node its row and scores.
- hub: a million in-edges of one node beside a million edges that are spread.
- layers, epochs: the cases of `layers`, `epochs` and `temporal`, on the card.
- sampled: blocks of a CPU sampler, and the share of sampling, copies, structure and computing.

The graphs stay DGLGraphs on the CPU, as PyPI's DGL has them. Times are medians over interleaved rounds, taken by the
device's own clock over several calls; memory is the peak above what stood there before. `--device cpu --scale 0.001`
goes through all of it without a GPU, and says nothing about speed.
"""

import gc
import math
import time
from functools import partial
from statistics import median

import dgl
import torch
import torch.nn.functional as F

import hgat
from benchmarks import epochs, graphs, layers, operators, temporal, timing
from benchmarks.graphs import Structure
from benchmarks.peers import pyg
from benchmarks.timing import Candidate
from hgat import ops

__all__ = ["SECTIONS", "run"]

ALLOWED = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}  # type: difference allowed, of the largest
# Every shape and type takes kernels of its own, and a second or two to compile each.
RIGHT = {(4, 32): tuple(ALLOWED), (3, 50): (torch.float32,), (1, 7): (torch.float32,)}
SHAPES = ((4, 32), (8, 8), (1, 64), (4, 64), (8, 128))
PRODUCTS = (2_449_029, 123_718_280)
PAPERS = (736_389, 5_416_271 * 2 + 736_389)  # ogbn-mag: papers, citations both ways, self-loops
COPIED = 2**28  # numbers that are copied to learn the card's rate
LEAST, MOST = 0.03, 200  # seconds of a timed round; calls in it at most
MIB = 2**20


class Clock:
    """Times and memory of a device."""

    def __init__(self, device):
        self.device, self.cuda = torch.device(device), torch.device(device).type == "cuda"

    def wait(self):
        """Until all that was asked of the device is done."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, function, calls):
        """Of one call, the mean of `calls` in a row."""
        self.wait()
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(calls):
                function()
            return (time.perf_counter() - start) / calls
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            function()
        end.record()
        self.wait()
        return start.elapsed_time(end) / 1000 / calls

    def peak(self, function):
        """Bytes at the peak above those before, or None off CUDA."""
        if not self.cuda:
            function()
            return None
        gc.collect()
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        function()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before

    def rate(self):
        """Bytes per second of a copy, read and written."""
        a = torch.empty(COPIED if self.cuda else 2**22, device=self.device)
        b = torch.empty_like(a)
        return 8 * a.numel() / min(self.seconds(lambda: b.copy_(a), 5) for _ in range(3))


def _dgl_runs(graph, device):
    """Whether DGL's own kernels run on this device."""
    try:
        graph.to(device)
    except Exception:  # DGL's error for a build without CUDA, by any class
        return False
    return True


def _composed(ours):
    """hgat's candidate on the backend of plain PyTorch."""

    def inside(call):
        def run(*state):
            with ops.use_backend("torch"):
                return call(*state)

        return run

    step = None if ours.step is None else inside(ours.step)
    return Candidate("composed", inside(ours.call), ours.leaves, ours.common, step=step)


# ---------------------------------------------------------------------------------------- right


def _kinds(scale):
    """{name: graph} of small graphs of all kinds."""
    generator = torch.Generator().manual_seed(7)

    def drawn(count, size):
        return torch.randint(0, size, (count,), generator=generator)

    count = max(int(20_000 * scale), 60)
    hub = torch.cat([torch.zeros(count, dtype=torch.int64), drawn(count // 4, 300)])
    return {
        "power law": graphs.power_law(max(count // 12, 20), count).graph,
        "hub": dgl.graph((drawn(len(hub), 300), hub), num_nodes=300),
        "two ends, silent nodes": dgl.heterograph(
            {("a", "to", "b"): (drawn(500, 97), drawn(500, 61) // 2)}, num_nodes_dict={"a": 97, "b": 61}
        ),
        "32-bit ids": dgl.graph((drawn(900, 83), drawn(900, 83)), num_nodes=83).int(),
        "loops alone": dgl.graph((torch.arange(13), torch.arange(13)), num_nodes=13),
        "no edges": dgl.graph(([], []), num_nodes=7),
    }


def _calls(graph, heads, width, dtype, device):
    """[(what, function of the leaves, leaves)]: every operator, bare and with all that it takes."""
    generator = torch.Generator().manual_seed(heads * 100 + width)
    num_src, num_dst, edges = graph.num_src_nodes(), graph.num_dst_nodes(), graph.num_edges()

    def random(*shape):
        return torch.randn(shape, generator=generator).to(dtype).to(device).requires_grad_()

    mask = (torch.rand(edges, heads, generator=generator) > 0.2).to(device)
    value, key, query = random(num_src, heads, width), random(num_src, heads, width), random(num_dst, heads, width)
    left, right, edge, weight = (
        random(num_src, heads),
        random(num_dst, heads),
        random(edges, heads),
        random(edges, heads),
    )
    attn, row = random(heads, width), random(edges, heads, width)
    more = {"edge_mask": mask, "dropout": 0.3, "seed": 5}
    add, gatv2, dot = ops.additive_attention, ops.gatv2_attention, ops.dot_product_attention

    def all_add(value, left, right, edge, weight):
        return add(graph, value, left, right, score_edge=edge, edge_weight=weight, **more)

    def all_gatv2(value, query, attn, row, weight):
        return gatv2(graph, value, query, attn, feat_edge=row, edge_weight=weight, **more)

    def all_dot(query, key, value, edge, weight):
        return dot(graph, query, key, value, bias=edge, edge_weight=weight, **more)

    return [
        ("additive", partial(add, graph), [value, left, right]),
        ("additive, all", all_add, [value, left, right, edge, weight]),
        ("additive weights", partial(ops.additive_weights, graph), [left, right]),
        ("additive logits", partial(ops.additive_logits, graph), [left, right]),
        ("gatv2", partial(gatv2, graph), [value, query, attn]),
        ("gatv2, all", all_gatv2, [value, query, attn, row, weight]),
        ("gatv2 weights", partial(ops.gatv2_weights, graph), [value, query, attn]),
        ("dot", partial(dot, graph), [query, key, value]),
        ("dot, all", all_dot, [query, key, value, edge, weight]),
        ("dot weights", partial(ops.dot_product_weights, graph), [query, key]),
        ("dot logits", partial(ops.dot_product_logits, graph), [query, key]),
        ("edge softmax", partial(ops.edge_softmax, graph), [edge]),
        ("weighted sum", partial(ops.weighted_sum, graph), [value, weight]),
        ("copy_u", partial(ops.copy_u, graph), [left]),
        ("copy_v", partial(ops.copy_v, graph), [right]),
    ]  # fmt: skip


def _evaluated(call, leaves, dtype):
    """[output, *gradients] along a random cotangent of numbers that `dtype` holds."""
    out = call(*leaves)
    along = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, along.to(out))]


def check(report, clock, options):
    """Every operator beside float64; gives what was wrong, in sentences."""
    worst, wrong, done = dict.fromkeys(ALLOWED, 0.0), [], 0
    for name, graph in _kinds(options.scale).items():
        for (heads, width), dtypes in RIGHT.items():
            for dtype in dtypes:
                allowed = ALLOWED[dtype]
                for what, call, leaves in _calls(graph, heads, width, dtype, clock.device):
                    found = _evaluated(call, leaves, dtype)
                    again = _evaluated(call, leaves, dtype)
                    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
                    with ops.use_backend("torch"):
                        expected = _evaluated(call, wide, dtype)
                    done += 1
                    where = f"{what}, {heads} x {width}, {dtype}, {name}"
                    if not all(torch.equal(a, b) for a, b in zip(found, again, strict=True)):
                        wrong.append(f"{where}: other bits the second time")
                    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
                        # Where all that goes into a gradient cancels, rounding is all that is left of it.
                        largest = max(float(b.abs().max()) if b.numel() else 0.0, 1.0)
                        off = float((a.double() - b).abs().max()) / largest if b.numel() else 0.0
                        worst[dtype] = max(worst[dtype], off)
                        if not off <= allowed:
                            part = f"gradient {number}" if number else "output"
                            wrong.append(f"{where}: {part} is off by {off:.2g} of the largest entry")
    text = ", ".join(f"{str(dtype).removeprefix('torch.')} {off:.1e}" for dtype, off in worst.items())
    report.say(f"right: {done} calls with their gradients; largest difference from float64: {text}; {len(wrong)} wrong")
    for sentence in wrong[:40]:
        report.say(f"WRONG  {sentence}")
    report.unequal += wrong
    report.results.append({"section": "right", "calls": done, "wrong": wrong})


# ---------------------------------------------------------------------------------------- rows of the tables


HEAD = (
    f"{'case':<46}{'pass':<18}{'time: x/hgat':^30}{'of bytes':>10}{'MiB':>9}{'memory: x/hgat':^30}\n"
    f"{'':<64}{'DGL':>10}{'PyG':>10}{'composed':>10}{'':>19}{'DGL':>10}{'PyG':>10}{'composed':>10}"
)
OTHERS = ("DGL", "PyG", "composed")


def _measure(clock, case, which, rounds):
    """({name: seconds}, {name: bytes}) of the candidates that fit into the device's memory."""
    seconds, peaks, calls, functions = {}, {}, {}, {}
    for candidate in case.candidates:
        try:
            function = timing.runner(candidate, which)
            function()
            peaks[candidate.name] = clock.peak(function)
            calls[candidate.name] = min(max(math.ceil(LEAST / max(clock.seconds(function, 2), 1e-6)), 2), MOST)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        functions[candidate.name], seconds[candidate.name] = function, []
    for _ in range(rounds):
        for name, function in functions.items():
            seconds[name].append(clock.seconds(function, calls[name]))
    return {name: median(values) for name, values in seconds.items()}, peaks


def _cell(above, below):
    if above is None or not below:
        return f"{'-':>10}"
    ratio = above / below
    return f"{ratio:>10.2f}" if ratio < 100 else f"{ratio:>10.0f}"


def _rows(report, clock, case, rounds, floor=None, alone=False):
    """Check a case, time it, and print its rows.

    floor: seconds in which the bytes of a forward pass are copied. alone: time hgat by itself.
    """
    if report.only is not None and not report.only.search(case.title):
        return
    ours = case.candidates[0]
    names = {"hgat"} if alone else {"hgat", "PyG", *(["DGL"] if report.dgl_runs else [])}
    case.candidates = [c for c in case.candidates if c.name in names]
    if not alone:
        case.candidates.append(_composed(ours))
    try:
        if not alone:
            timing.check(case)
    except timing.Unequal as unequal:
        report.unequal.append(str(unequal))
        report.say(f"NOT EQUAL  {unequal}")
        return
    except torch.OutOfMemoryError:
        # What does not fit is not compared; hgat itself was compared in the section "right".
        torch.cuda.empty_cache()
        report.say(f"{case.title}: not every candidate fits into the card's memory, so they are timed without a proof")
    for which in case.passes:
        time_, peak = _measure(clock, case, which, rounds)
        cells = "".join(_cell(time_.get(name), time_.get("hgat")) for name in OTHERS)
        cells += _cell(time_.get("hgat"), floor)
        cells += f"{peak['hgat'] / MIB:>9.0f}" if peak.get("hgat") is not None else f"{'-':>9}"
        cells += "".join(_cell(peak.get(name), peak.get("hgat")) for name in OTHERS)
        report.say(f"{case.title:<46}{which:<18}{cells}")
        report.results.append({"case": case.title, "pass": which, "seconds": time_, "bytes": peak, "floor": floor})


def _bytes(operator, structure, heads, width, size):
    """Bytes of a forward pass without any cache: indices of four bytes, scores of `size` bytes as the rows."""
    row, nodes, edges = heads * width * size, structure.num_dst, structure.graph.num_edges()
    per_edge = {"gat": 4 + heads * size + row, "gatv2": 4 + row, "dot": 4 + 2 * row}[operator]
    per_node = {"gat": row + heads * size, "gatv2": 2 * row, "dot": 2 * row}[operator]
    return edges * per_edge + nodes * per_node


def _uniform(nodes, edges):
    """Every node has the same number of in-edges, from sources at random."""
    generator = torch.Generator().manual_seed(0)
    dst = torch.arange(edges) % nodes
    return Structure(dgl.graph((torch.randint(0, nodes, (edges,), generator=generator), dst), num_nodes=nodes))


def _large(nodes, edges):
    """A power law drawn fast: ends with probability ~ rank^-0.7, by its inverse, in no order."""
    generator = torch.Generator().manual_seed(0)
    rank = (
        (torch.rand(edges, generator=generator, dtype=torch.float64) ** (1 / 0.3) * nodes).long().clamp_(max=nodes - 1)
    )
    dst = torch.randperm(nodes, generator=generator)[rank]
    return Structure(dgl.graph((torch.randint(0, nodes, (edges,), generator=generator), dst), num_nodes=nodes))


def time_operators(report, clock, options):
    """The operators on graphs of OGB's sizes."""
    rate, scale = clock.rate(), options.scale
    report.say(f"\noperators; the card copies {rate / 1e12:.2f} TB/s\n{HEAD}")
    shapes = {
        "arxiv": (lambda: graphs.arxiv(scale), SHAPES, (torch.float32, torch.bfloat16)),
        "arxiv, uniform": (lambda: _uniform(*(int(n * scale) for n in graphs.ARXIV)), ((4, 32),), (torch.float32,)),
        "mag's papers": (lambda: _large(*(int(n * scale) for n in PAPERS)), ((4, 32),), (torch.float32,)),
        "products": (lambda: _large(*(int(n * scale) for n in PRODUCTS)), ((4, 32), (4, 64)), (torch.float32,)),
    }
    for name, (make, widths, dtypes) in shapes.items():
        titles = [f"{title} {h} x {w}, {name}" for title in operators.TITLES.values() for h, w in widths]
        if report.only is not None and not any(map(report.only.search, titles)):
            continue
        structure = make()
        for operator in operators.OPERATORS:
            for heads, width in widths:
                for dtype in dtypes if (heads, width) == (4, 32) else dtypes[:1]:
                    case = operators.on(structure, operator, heads, width, dtype)
                    half = "" if dtype is torch.float32 else " bfloat16"
                    case.title = f"{operators.TITLES[operator]} {heads} x {width}{half}, {name}"
                    floor = _bytes(operator, structure, heads, width, dtype.itemsize) / rate
                    # Peers sum in bfloat16, which differs by more than a proof in float32 allows: hgat alone.
                    _rows(report, clock, case, options.rounds, floor, alone=bool(half))
                    del case


def time_hub(report, clock, options):
    """One node with a million in-edges beside a million edges that are spread."""
    edges, nodes = max(int(1_000_000 * options.scale), 100), max(int(100_000 * options.scale), 20)
    generator = torch.Generator().manual_seed(0)
    src = torch.randint(0, nodes, (edges,), generator=generator)
    found = {}
    for name, dst in (("hub", torch.zeros_like(src)), ("spread", torch.randperm(edges, generator=generator) % nodes)):
        structure = Structure(dgl.graph((src, dst), num_nodes=nodes))
        case = operators.on(structure, "gat", 4, 32)
        case.candidates = case.candidates[:1]
        found[name] = {which: _measure(clock, case, which, options.rounds)[0]["hgat"] for which in case.passes}
    for which in found["hub"]:
        report.say(f"hub over spread, GAT 4 x 32, {which}: {found['hub'][which] / found['spread'][which]:.2f}")
    report.results.append({"section": "hub", "seconds": found})


# ---------------------------------------------------------------------------------------- layers, epochs, sampled


def time_layers(report, clock, options):
    """Layers on a large graph, on a block of 1,024 seeds, on Cora, on typed graphs."""
    report.say(f"\nlayers\n{HEAD}")
    scale, root = options.scale, options.root
    for layer in layers.HOMOGENEOUS:
        for where, heads, width in (("arxiv", 4, 32), ("block", 4, 32), ("cora", 8, 8)):
            _case(
                report, clock, options, partial(layers.homogeneous, layer, where, heads, width, scale=scale, root=root)
            )
    _case(report, clock, options, partial(layers.rgat, 0.1, scale=scale))
    _case(report, clock, options, partial(layers.rgat, 0.01, scale=scale))
    _case(report, clock, options, partial(layers.han, "PyG", "arxiv", scale=scale))


def time_epochs(report, clock, options):
    """Whole training epochs."""
    report.say(f"\nepochs\n{HEAD}")
    scale, root = options.scale, options.root
    _case(report, clock, options, partial(epochs.stack, "GATConv", 3, 250, scale))
    _case(report, clock, options, partial(epochs.stack, "GATConv", 4, 32, scale))
    _case(report, clock, options, partial(epochs.stack, "GATv2Conv", 4, 32, scale))
    _case(report, clock, options, partial(epochs.rgat, 0.1, scale=scale))
    _case(report, clock, options, partial(epochs.rgat_within, 0.1, scale=scale))
    _case(report, clock, options, partial(epochs.han, root=root))
    _case(report, clock, options, partial(temporal.dysat, scale))


def _case(report, clock, options, make):
    try:
        case = make()
    except graphs.Missing as missing:
        report.say(str(missing))
        return
    # Entries are compared in the section "right"; a layer's logits near zero fall on either side of LeakyReLU's kink.
    case.proof, case.by_norm = None, True
    try:
        _rows(report, clock, case, options.rounds)
    finally:
        del case
        if clock.cuda:
            torch.cuda.empty_cache()


PARTS = ("sampling", "copies", "structure", "compute")
BATCH, BATCHES, FANOUT = 1024, 20, (10, 10, 10)


def time_sampled(report, clock, options):
    """GAT of three layers on blocks of DGL's CPU sampler, part by part: each is waited for, so that it can be timed."""
    structure, (heads, width), classes = graphs.arxiv(options.scale), (4, 32), 40
    feat = torch.randn(structure.num_src, 128)
    label = torch.randint(0, classes, (structure.num_src,))
    torch.manual_seed(0)
    sizes = [(128, width, heads), (heads * width, width, heads), (heads * width, classes, 1)]
    stack = torch.nn.ModuleList(hgat.nn.GATConv(*size, allow_zero_in_degree=True) for size in sizes).to(clock.device)
    optimizer = torch.optim.Adam(stack.parameters(), lr=1e-3)
    sampler = dgl.dataloading.NeighborSampler(list(FANOUT))
    ids = torch.arange(structure.num_src)
    spent = dict.fromkeys(PARTS, 0.0)

    loader = dgl.dataloading.DataLoader(structure.graph, ids, sampler, batch_size=BATCH, shuffle=True)
    batches = iter(loader)
    for number in range(BATCHES + 3):
        marks = [time.perf_counter()]
        found = next(batches, None)
        if found is None:
            break
        inputs, seeds, blocks = found
        marks.append(time.perf_counter())
        h, target = hgat.graph.to_device((feat[inputs], label[seeds]), clock.device)
        clock.wait()
        marks.append(time.perf_counter())
        blocks = hgat.graph.to_device(blocks, clock.device)
        clock.wait()
        marks.append(time.perf_counter())
        for layer, block in zip(stack[:-1], blocks, strict=False):
            h = F.elu(layer(block, h).flatten(1))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(stack[-1](blocks[-1], h).mean(1), target).backward()
        optimizer.step()
        clock.wait()
        marks.append(time.perf_counter())
        if number >= 3:
            for part, start, end in zip(PARTS, marks, marks[1:], strict=False):
                spent[part] += end - start
    whole = max(sum(spent.values()), 1e-12)
    shares = ", ".join(f"{part} {100 * value / whole:.0f} %" for part, value in spent.items())
    report.say(f"\nsampled, GAT 3 layers, {heads} x {width}, batches of {BATCH}, one after the other: {shares}")
    report.results.append({"section": "sampled", "seconds": spent})


SECTIONS = {
    "right": check,
    "operators": time_operators,
    "hub": time_hub,
    "layers": time_layers,
    "epochs": time_epochs,
    "sampled": time_sampled,
}


def run(report, options):
    """Run the sections that the options name, in order."""
    unknown = [section for section in options.sections if section not in SECTIONS]
    if unknown:
        raise SystemExit(f"--sections: expected some of {','.join(SECTIONS)}, got {unknown[0]!r}")
    clock = Clock(options.device)
    name = torch.cuda.get_device_name(clock.device) if clock.cuda else "no GPU"
    report.dgl_runs = _dgl_runs(dgl.graph(([0], [0])), clock.device)
    report.say(
        f"Device: {name}, backends {hgat.ops.backends()}; DGL {'runs' if report.dgl_runs else 'does not run'} on it, "
        f"PyG {'is' if pyg() is not None else 'is not'} there."
    )
    with graphs.on_device(options.device):
        for section in options.sections:
            SECTIONS[section](report, clock, options)
