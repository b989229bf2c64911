"""Labels of events in a stream, each asked for at its own moment.

Events become known at their own times: what is asked for at a moment is answered from what was known strictly before
it. Parts are cut in time, by when an event is asked for; what is learned from must be known when validation begins, and
what is chosen by when the test begins. The events between, asked for before and known after a cut, are in no part.
"""

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat.data import StreamData
from hgat.errors import RecipeError
from hgat.graph import from_events, recent_events
from hgat.models import Batch, Facts, System
from hgat.models._streams import known_when_asked
from hgat.tasks import _metrics
from hgat.tasks._fitted import Boosted, Linear
from hgat.tasks._task import Control, Task, check_finite

__all__ = ["StreamLabels"]

AT_ONCE = 4_000  # events scored in one forward pass of an evaluation


class Majority(Control):
    """The share of training events with label 1: the same learned logit for every event."""

    title = "majority class"

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(1))

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return ()

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "Majority":
        return cls()

    def forward(self, events: Tensor) -> Tensor:
        """events [B] -> the same logit for each, [B]."""
        return self.logit.expand(len(events))


class NoGraph(Control):
    """A two-layer perceptron on what is known of an event itself and of its entities when it is asked for."""

    title = "no graph"

    def __init__(self, in_feats: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_feats, hidden), nn.ReLU(), nn.Dropout(drop), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.out = nn.Linear(hidden, 1)

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return (known_when_asked(shown),)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, *, hidden: int = 64, feat_drop: float = 0.0) -> "NoGraph":
        return cls(inputs[0].shape[1], hidden, feat_drop)

    def forward(self, own: Tensor, events: Tensor) -> Tensor:
        """own [N, F], events [B], their numbers -> logits [B]."""
        return self.out(self.layers(own[events.to(own.device)])).squeeze(-1)


LASTS = (1, 3, 10, 30)  # events that an average is taken over


def averages(shown: Facts) -> Tensor:
    """[N, F + R * 4 * (Fa + 2)]: a table that an expert would make of each event's past, without attention.

    What is known of the event and its entities when it is asked for, and for every relation and each of the last 1, 3,
    10 and 30 events: the mean of what is known of those once they are known, their number, and ln(1 + age) of the
    first of them. Zeros where there is none.
    """
    recent, own = recent_events(shown.graph, shown.asked, LASTS[-1]), known_when_asked(shown)
    columns = [own]
    for place in range(len(recent.etypes)):
        event, age = recent.event[:, place].long(), recent.elapsed[:, place].double().log1p().float()
        mask = event >= 0
        for count in LASTS:
            number = mask[:, -count:].sum(1)
            first = (LASTS[-1] - number).clamp(max=LASTS[-1] - 1).unsqueeze(1)
            columns += [number.unsqueeze(1).float() / count, age.gather(1, first)]
            if shown.after is not None:
                told = shown.after.new_zeros(len(own), shown.after.shape[1])
                for slot in range(LASTS[-1] - count, LASTS[-1]):  # all at once would be Fa tables of the last 30
                    told += shown.after[event[:, slot].clamp(min=0)] * mask[:, slot].unsqueeze(1)
                columns.append(told / number.clamp(min=1).unsqueeze(1))
    return torch.cat(columns, 1)


class OnAverages(Control):
    """A model of scikit-learn on what `averages` gives, solved; validation chooses among its settings.

    A state holds the number of the setting alone: what is solved follows from it and from what is shown, and is solved
    once for all seeds. Subclasses give `estimator` and `solutions`.
    """

    number: Tensor

    def __init__(self, shown: Facts, inputs: tuple) -> None:
        super().__init__()
        self.register_buffer("number", torch.zeros((), dtype=torch.int64))
        self.shown = shown
        self.table, self.solved = inputs

    @staticmethod
    def estimator(number: int, numeric: bool) -> Any:
        """scikit-learn's classifier with setting `number`."""
        raise NotImplementedError("estimator")

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        """(the table [N, F], {number of a setting: what was solved on it})."""
        return averages(shown), {}

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "OnAverages":
        return cls(shown, inputs)

    def solve(self, shown: Facts, inputs: tuple, number: int) -> None:
        self.number.fill_(number)

    def forward(self, table: Tensor, solved: dict, events: Tensor) -> Tensor:
        """table [N, F], of its part, events [B], their numbers -> logits [B]."""
        number, train = int(self.number), self.shown.train
        if number not in self.solved:
            label = self.shown.label[train].numpy()
            # Columns that depend on one another, as those of one-hot rows do, ask for float64.
            self.solved[number] = self.estimator(number, False).fit(self.table[train].double().cpu().numpy(), label)
        found = self.solved[number].decision_function(table[events.to(table.device)].double().cpu().numpy())
        return torch.from_numpy(found).to(table)


class LinearAverages(OnAverages):
    """Logistic regression on the averages of the last events, standardised; validation chooses the strength."""

    title = "linear on recent averages"
    solutions = Linear.solutions
    estimator = staticmethod(Linear.estimator)


class BoostedAverages(OnAverages):
    """Boosted trees on the averages of the last events; validation chooses their number and size."""

    title = "boosted trees on recent averages"
    solutions = Boosted.solutions
    estimator = staticmethod(Boosted.estimator)


class StreamLabels(Task):
    """Which label an event of a stream has, asked at its moment: binary cross-entropy over the training events.

    batch: events in a step of the optimiser, in a new random order in every epoch.
    The answer of a system: logits [B] of the events [B], whose numbers come behind its inputs.
    """

    kind = StreamData
    data: StreamData
    unit = "events"
    metrics = ("average_precision", "auc")
    controls = {
        "majority": Majority,
        "no_graph": NoGraph,
        "linear_averages": LinearAverages,
        "boosted_averages": BoostedAverages,
    }

    def __init__(self, data: Any, *, batch: int = 200) -> None:
        super().__init__(data)
        if batch < 1:
            raise RecipeError(f"task.batch: expected 1 or more, got {batch}")
        self.batch = batch
        known, asked = data.known(), data.asked
        labelled = data.label >= 0
        val, test = (_cut(time, asked) for time in (data.val_time, data.test_time))
        self.parts = {
            "train": (labelled & (asked < val) & (known < val)).nonzero().squeeze(1),
            "val": (labelled & (asked >= val) & (asked < test) & (known < test)).nonzero().squeeze(1),
            "test": (labelled & (asked >= test)).nonzero().squeeze(1),
        }
        for part, ids in self.parts.items():
            ones = int(data.label[ids].sum())
            if not 0 < ones < len(ids):
                raise RecipeError(
                    f"task: expected events with either label in every part, got {ones} of {len(ids)} with label 1 "
                    f"for {part}"
                )
        label = torch.full_like(data.label, -1)
        label[self.parts["train"]] = data.label[self.parts["train"]]
        self._facts = {part: self._until(cut, label) for part, cut in (("train", val), ("val", test), ("test", None))}

    def _until(self, cut: Tensor | None, label: Tensor) -> Facts:
        """What may be read before `cut`, a time, or None for all that there is; the labels are the training events'."""
        data, feat, after, asked = self.data, dict(self.data.feat), self.data.after, self.data.asked
        found = {}
        for etype in data.graph.canonical_etypes:
            src, dst = data.graph.edges(etype=etype, order="eid")
            time = data.graph.edges[etype].data["time"]
            here = slice(None) if cut is None else time < cut
            found[etype] = src[here], dst[here], time[here]
        if cut is not None:
            due, known = asked < cut, data.known() < cut
            own = feat[data.target]
            feat[data.target] = None if own is None else own * due.unsqueeze(1)
            after = None if after is None else after * known.unsqueeze(1)
            # Of a later event it is not even said when it will be asked for.
            asked = torch.where(due, asked, asked[due].max())
        sizes = {ntype: data.graph.num_nodes(ntype) for ntype in data.graph.ntypes}
        return Facts(
            from_events(found, sizes),
            feat,
            target=data.target,
            label=label,
            train=self.parts["train"],
            num_classes=2,
            directed=True,
            asked=asked,
            after=after,
        )

    def shown(self) -> Facts:
        """What was known when validation began, and the labels of the training events."""
        return self._facts["train"]

    def shown_at(self, part: str) -> Facts:
        """What is known when the part has ended: what was known before an event is asked for may be read."""
        return self._facts[part]

    def sizes(self) -> dict[str, int]:
        """Labelled events of every part."""
        return {part: len(ids) for part, ids in self.parts.items()}

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        """All training events, `batch` of them in a step, in a new random order."""
        ids = self.parts["train"]
        for part in ids[torch.randperm(len(ids))].split(self.batch):
            yield Batch(query=(part,), label=self.data.label[part])

    def loss(self, answer: Tensor, batch: Batch) -> Tensor:
        """The mean binary cross-entropy of the batch."""
        return F.binary_cross_entropy_with_logits(answer, cast(Tensor, batch.label).to(answer))

    @torch.no_grad()
    def logits(self, model: System, inputs: tuple, part: str) -> Tensor:
        """[B] of the events of a part, in evaluation mode, on the CPU."""
        model.eval()
        pieces = self.parts[part].split(AT_ONCE)
        return torch.cat([model.answer(inputs, Batch(query=(ids,))).cpu() for ids in pieces])

    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(metric in percent, loss) on the events of a part."""
        return self._measured(self.logits(model, inputs, part), part, metric)

    def _measured(self, logits, part, metric):
        label = self.data.label[self.parts[part]].unsqueeze(1)
        loss = float(F.binary_cross_entropy_with_logits(logits.double(), label.squeeze(1).double()))
        check_finite(loss, f"on the {part} events", self.data.feat)
        return _metrics.score(metric, logits.unsqueeze(1), label, multilabel=True), loss

    def results(self, model: System, inputs: tuple, metric: str, **_: Any) -> tuple[dict, dict[str, Tensor]]:
        """{"test": the metric on the test events, "more": every other one}."""
        logits = self.logits(model, inputs, "test")
        found = {name: self._measured(logits, "test", name)[0] for name in self.metrics}
        return {"test": found.pop(metric), "more": found}, {}


def _cut(time: float, like: Tensor) -> Tensor:
    """A time as a tensor of the times' own type: whole numbers compared with a float are rounded to float32."""
    return torch.tensor(time if like.is_floating_point() else math.ceil(time), dtype=like.dtype)
