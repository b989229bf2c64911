"""Ten thousand calls with something wrong, drawn at random: one clear sentence each, or the right answer."""

import random

import pytest
import torch

from hgat import ops
from hgat.errors import HgatError
from zoo import ZOO, build

CALLS = 10_000
OPERATORS = {
    "additive_attention": ("value:SHD", "score_src:SH", "score_dst:TH", "score_edge:EH?", "edge_weight:EH?"),
    "additive_weights": ("score_src:SH", "score_dst:TH", "score_edge:EH?"),
    "gated_attention": ("value:SHD", "score_src:SH", "score_dst:TH", "score_edge:EH?", "edge_weight:EH?"),
    "gatv2_attention": ("feat_src:SHD", "feat_dst:THD", "attn:HD", "feat_edge:EHD?", "edge_weight:EH?"),
    "gatv2_weights": ("feat_src:SHD", "feat_dst:THD", "attn:HD", "feat_edge:EHD?"),
    "dot_product_attention": ("query:THD", "key:SHD", "value:SHV", "bias:EH?", "edge_weight:EH?"),
    "dot_product_weights": ("query:THD", "key:SHD", "bias:EH?"),
    "dot_product_logits": ("query:THD", "key:SHD", "bias:EH?"),
    "additive_logits": ("score_src:SH", "score_dst:TH", "score_edge:EH?"),
    "copy_u": ("score_src:SH",),
    "edge_softmax": ("logits:EH",),
    "weighted_sum": ("value:SHD", "weight:EH"),
}
TYPES = [torch.float32] * 6 + [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.complex64]


def _tensor(rng, sizes, letters):
    shape = [sizes[letter] for letter in letters]
    if rng.random() < 0.15:  # one size off, or empty
        shape[rng.randrange(len(shape))] = rng.choice([0, 1, 2, 41])
    if rng.random() < 0.05:  # one axis too many or too few
        shape = [*shape, 1] if rng.random() < 0.5 else shape[1:]
    dtype = rng.choice(TYPES) if rng.random() < 0.2 else torch.float32
    tensor = torch.randn(shape).to(dtype)
    if rng.random() < 0.1 and tensor.dim() > 1:  # strides of another order, or overlapping
        tensor = tensor.transpose(0, -1).contiguous().transpose(0, -1)
    elif rng.random() < 0.05 and tensor.numel():
        tensor = tensor[:1].expand(tensor.shape)
    if rng.random() < 0.02:
        tensor = tensor.to("meta")
    if rng.random() < 0.02:
        return rng.choice([None, 1.0, "text", torch.eye(3).to_sparse()])
    return tensor


def _call(rng, graphs):
    graph = graphs[rng.choice(list(graphs))]
    sizes = {
        "S": graph.num_src_nodes(), "T": graph.num_dst_nodes(), "E": graph.num_edges(),
        "H": rng.choice([0, 1, 2, 3, 4, 8]), "D": rng.choice([0, 1, 2, 5, 8, 17]), "V": rng.choice([1, 3, 16]),
    }  # fmt: skip
    name = rng.choice(list(OPERATORS))
    arguments = {}
    for item in OPERATORS[name]:
        key, letters = item.split(":")
        if letters.endswith("?") and rng.random() < 0.5:
            continue
        arguments[key] = _tensor(rng, sizes, letters.rstrip("?"))
    if name.endswith("attention") and rng.random() < 0.3:
        arguments |= {
            "dropout": rng.choice([0.0, 0.5, 1.0, 1.5, -1, float("nan"), "half"]),
            "seed": rng.choice([1, -5, 2**70]),
        }
    return name, graph if rng.random() < 0.99 else None, arguments


def test_a_wrong_call_is_refused_and_a_right_one_is_right():
    rng = random.Random(7)
    torch.manual_seed(7)
    graphs = {f"{name}-{t}": build(name, t) for name in ZOO for t in (torch.int32, torch.int64)}
    refused = served = 0
    for _ in range(CALLS):
        name, graph, arguments = _call(rng, graphs)
        operator = getattr(ops, name)
        try:
            got = operator(graph, **arguments)
        except HgatError as error:
            assert len(str(error)) > 20 and "\n" not in str(error)
            refused += 1
            continue
        served += 1
        if got.device.type == "meta":
            continue
        with ops.use_backend("dgl"):
            expected = operator(graph, **arguments)
        assert got.dtype == expected.dtype and got.shape == expected.shape
        half = torch.finfo(got.dtype).bits == 16
        torch.testing.assert_close(
            got, expected, atol=0.05 if half else 1e-4, rtol=0.05 if half else 1e-4, equal_nan=True
        )
    assert refused > CALLS // 10 and served > CALLS // 10, (refused, served)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_right_call_of_every_operator_is_served(name):
    graph = build("bipartite")
    sizes = {"S": 19, "T": 13, "E": graph.num_edges(), "H": 3, "D": 5, "V": 2}
    items = [item.rstrip("?").split(":") for item in OPERATORS[name]]
    out = getattr(ops, name)(graph, **{key: torch.randn([sizes[k] for k in letters]) for key, letters in items})
    assert torch.isfinite(out).all()
