"""Fixtures that every test shares: fixed seeds, fresh memory full of NaN, the folder of real data."""

import os
import signal
from pathlib import Path

import pytest
import torch

if os.environ.get("HGAT_TEST_TRITON", "") not in ("", "0"):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported

import hgat  # noqa: E402, F401  (before any dgl)

DATA = Path(os.environ.get("HGAT_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

# A shell that starts the tests in the background has SIGINT ignored, by them and by all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(20240229)


@pytest.fixture(autouse=True)
def nan_memory():
    """Uninitialised tensors are NaN, so that a kernel which forgets an element cannot pass by luck."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def real_data():
    """Gives the folder of a real data set, or skips and says which file is missing."""

    def find(*parts):
        path = DATA.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"missing {path}")
        return DATA

    return find
