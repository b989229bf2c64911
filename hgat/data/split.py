"""Seeded splits, the same for a seed on every machine and with every release, and what is in them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from hgat.errors import DataError

__all__ = ["Drawn", "class_counts", "drawn", "per_class", "shares", "shuffled"]

Drawn = Literal["planetoid", "gpr_gnn", "uag"]


def shuffled(ids: torch.Tensor, seed: int) -> torch.Tensor:
    """A permutation of the int64 tensor `ids`, decided by `seed`."""
    if not 0 <= seed < 2**32:
        raise DataError(f"split_seed: expected a number from 0 to 2**32 - 1, got {seed}")
    # RandomState and not default_rng: NumPy promises that its stream never changes.
    order = np.random.RandomState(seed).permutation(len(ids))
    return ids[torch.from_numpy(order)]


def per_class(
    label: torch.Tensor, train: int, val: int, seed: int, what: str = "nodes"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids of train, val and test, decided by `seed`: `train` and `val` of every class, the rest for test.

    label: [N], -1 for nodes in no part. Raises DataError where a class has no node left for test; `what` names them.
    """
    order = shuffled(torch.arange(len(label)), seed)
    parts: tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]] = [], [], []
    for number in label[label >= 0].unique():
        ids = order[label[order] == number]
        if len(ids) <= train + val:
            raise DataError(f"labels: expected more than {train + val} {what} of class {number}, got {len(ids)}")
        for part, found in zip(parts, ids.split([train, val, len(ids) - train - val]), strict=True):
            part.append(found)
    of_train, of_val, of_test = (torch.cat(part).sort().values for part in parts)
    return of_train, of_val, of_test


def shares(
    known: torch.Tensor, group: torch.Tensor | None, parts: Sequence[float], seed: int
) -> dict[str, torch.Tensor]:
    """{"train", "val", "test"}: ids, decided by `seed`: these shares of the ids `known`, of every class alike.

    group: [N], the class of every node; None, no classes. Node k of the n of a class, in a random order, stands at
    (k + 1/2) / n; the parts are cut from all nodes in that order, so that their sizes are right to a node.
    """
    order = shuffled(known, seed)
    if group is not None:
        of = group[order]
        first = torch.argsort(of, stable=True)  # class by class
        count = torch.unique_consecutive(of[first], return_counts=True)[1]
        start = (count.cumsum(0) - count).repeat_interleave(count)
        at = torch.empty(len(of), dtype=torch.float64)
        at[first] = (torch.arange(len(of)) - start + 0.5).double() / count.repeat_interleave(count)
        order = order[torch.argsort(at, stable=True)]
    ends = [round(sum(parts[: k + 1]) * len(order)) for k in range(3)]
    cut = {"train": order[: ends[0]], "val": order[ends[0] : ends[1]], "test": order[ends[1] : ends[2]]}
    return {part: ids.sort().values for part, ids in cut.items()}


def drawn(
    label: torch.Tensor, classes: int, form: Drawn, draws: int, name: str
) -> tuple[tuple[Mapping[str, torch.Tensor], ...], str]:
    """(`draws` splits at random with the sizes of a paper, each {"train", "val", "test"}: ids; a note that says so).

    Number k is decided by k alone, so that seed k trains on the same nodes whoever draws it. label [N], -1 for nodes in
    no part, which do not count as N. form:
    "planetoid": 20 of each class for training, or all of a smaller one; 500 and 1000 of the others.
    "gpr_gnn": round(0.6 N / C) of each class, or all of a smaller one, of which the other parts have nothing then;
    round(0.2 N) of the others; and what is left.
    "uag": round(0.1 N) of all nodes, as many again, and what is left.
    Raises DataError where a part has no nodes or too few; `name` is the data set's.
    Papers: Yang et al. 2016, arXiv:1603.08861 (planetoid), drawn anew as by Liu et al. 2020, arXiv:2007.09296; Chien et
    al. 2021, arXiv:2006.07988 (gpr_gnn), whose splits ACM has; Feng et al. 2021, arXiv:2009.10235 (uag).
    """
    if draws < 1:
        raise DataError(f"{name}.draws: expected 1 or more, got {draws}")
    known = (label >= 0).nonzero().flatten()
    count = len(known)
    most = {"planetoid": 20, "gpr_gnn": round(0.6 * count / classes)}
    found = []
    for number in range(draws):
        order = shuffled(known, 2 * number)
        if form == "uag":
            chosen = torch.arange(count) < round(0.1 * count)
        else:
            one_hot = torch.nn.functional.one_hot(label[order], classes)
            chosen = (one_hot.cumsum(0) * one_hot).sum(1) <= most[form]  # the first of each class
        # Shuffled anew: what a small class has left stands late in the order by which it was chosen from.
        rest = shuffled(order[~chosen].sort().values, 2 * number + 1)
        val = {"planetoid": 500, "gpr_gnn": round(0.2 * count), "uag": round(0.1 * count)}[form]
        test = 1000 if form == "planetoid" else max(len(rest) - val, 1)
        if not chosen.any() or not val or val + test > len(rest):
            raise DataError(
                f"{name}.split: expected at least 1 training node and {max(val, 1)} + {test} others for {form!r}, "
                f"got {int(chosen.sum())} and {len(rest)}"
            )
        parts = order[chosen], rest[:val], rest[val : val + test]
        found.append({part: ids.sort().values for part, ids in zip(("train", "val", "test"), parts, strict=True)})
    note = f"Splits drawn at random with the sizes of {form}, {draws} of them, and not those of the files."
    return tuple(found), note


def class_counts(label: torch.Tensor, splits: Sequence[Mapping[str, torch.Tensor]], classes: int) -> str:
    """A note on how many nodes of each class are in each part, from the least to the most where splits differ.

    label [N] of whole numbers.
    """
    of_parts = []
    for part in ("train", "val", "test"):
        counts = torch.stack([label[split[part]].bincount(minlength=classes) for split in splits])
        ends = zip(counts.amin(0).tolist(), counts.amax(0).tolist(), strict=True)
        of_parts.append(f"{part} {', '.join(str(a) if a == b else f'{a}-{b}' for a, b in ends)}")
    over = f" in the {len(splits)} splits" if len(splits) > 1 else ""
    return f"Nodes of each class{over}: {'; '.join(of_parts)}."
