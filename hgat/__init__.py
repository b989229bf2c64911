"""Attention on typed and changing graphs, for DGL and PyTorch.

Importing hgat first makes `import dgl` and `import ogb` work on today's PyTorch (see hgat.compat).
"""

from hgat import compat

compat.install()

from hgat import data, graph, models, nn, ops  # noqa: E402  (DGL may be imported only after compat)
from hgat.accelerate import accelerate  # noqa: E402
from hgat.errors import HgatError  # noqa: E402

__version__ = "0.1.0"
__all__ = ["HgatError", "accelerate", "compat", "data", "graph", "models", "nn", "ops", "__version__"]
