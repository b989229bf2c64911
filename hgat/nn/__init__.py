"""Layers, one mechanism per file, with DGL's habits."""

from hgat.nn.dotgat import DotGatConv
from hgat.nn.edgegat import EdgeGATConv
from hgat.nn.fusion import SemanticAttention
from hgat.nn.gat import GATConv
from hgat.nn.gatv2 import GATv2Conv
from hgat.nn.han import HANConv
from hgat.nn.hgt import HGTConv
from hgat.nn.rgat import FeaturelessRGATConv, RGATConv
from hgat.nn.snapshotgat import SnapshotGATConv
from hgat.nn.temporal import TemporalAttention
from hgat.nn.tgat import TGATConv, TimeEncoding

__all__ = [
    "DotGatConv",
    "EdgeGATConv",
    "FeaturelessRGATConv",
    "GATConv",
    "GATv2Conv",
    "HANConv",
    "HGTConv",
    "RGATConv",
    "SemanticAttention",
    "SnapshotGATConv",
    "TGATConv",
    "TemporalAttention",
    "TimeEncoding",
]
