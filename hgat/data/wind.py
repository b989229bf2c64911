"""Wind: how much longer than usual for its route will a flight be in the air, from those that have just landed.

Format: see hgat.data.flights. Node types are `landed` and `departing`: every flight of the months with a time in the
air is a node of both, with the same number. An edge goes from a landed flight to a departing one that leaves within
`hours` behind its arrival; a flight that leaves has edges from the `landed` last ones. Relations say how old the news
are: `within 20 minutes`, `within 45 minutes`, `earlier`.

The moment of asking is the actual departure from the gate. Only flights are seen that had arrived at a gate in a minute
before, and whose scheduled departure is on the same day: days share nothing, so that a split by days is one. Within a
day a test flight sees test flights that have landed, as whoever asks at that moment does.

The number to predict is the time in the air, in minutes, less the mean of the flight's route (origin and destination),
taken over training flights alone; the same difference is a feature of a landed flight, with the same means. So labels
and features are computed anew for each split (`fitted`). Features besides, of both, standardised over training flights:
where the flight goes (as unit vector `north`, `east`, and times the distance, `far north`, `far east`), the distance
and its square, the clock and its square at arrival or departure, the delay of the departure, the plane's seats, the
airport and the airline. The weather in New York is none of them: it names the day, which trees and layers learn by
heart, and validation was no better with it.

Traps:
- Routes with fewer than `min_flights` flights in the months are left out, as asked and as seen: a mean of a few says
  little. A route without a training flight is an error of the split, not a silent zero.
- Inverse relations would let a flight see one that leaves after it, through a landed one that both have seen.
- An air time that is missing (cancelled, diverted) is no node.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hgat.data import flights
from hgat.data.card import Card
from hgat.data.sets import NodeData
from hgat.data.split import shuffled
from hgat.errors import DataError
from hgat.graph.events import from_events
from hgat.graph.places import Places

__all__ = ["from_table", "load"]

AGES = ((20, "within 20 minutes"), (45, "within 45 minutes"), (float("inf"), "earlier"))  # minutes, at most
USUAL = {"months": [1, 2, 3], "landed": 32, "hours": 4.0, "min_flights": 30}  # of the card
SHARES = (0.6, 0.8)  # of the days, where training and validation end


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    months: list[int] | None = None,
    landed: int = 32,
    hours: float = 4.0,
    min_flights: int = 30,
    draws: int = 5,
    stars: list[str] | None = None,
) -> NodeData:
    """Load Wind: of January to March, or of the `months` given; `draws` splits of the days in 60/20/20.

    landed: how many of the last landed flights a departing one sees at most. stars: destinations to draw maps for.
    """
    months = [1, 2, 3] if months is None else months
    chosen = {"months": months, "landed": landed, "hours": hours, "min_flights": min_flights}
    others = [f"{key} = {value}" for key, value in chosen.items() if value != USUAL[key]]
    found = flights.tables(card, verify=verify)
    table = flights.table(found["flights"], found["airports"], found["planes"], months=months)
    return from_table(
        table,
        name=f"{card.name} with {', '.join(others)}" if others else card.name,
        landed=landed,
        hours=hours,
        min_flights=min_flights,
        draws=draws,
        stars=["LAX", "MIA", "ORD"] if stars is None else stars,
        airports=found["airports"],
        notes=card.notes,
    )


def from_table(
    table: pd.DataFrame,
    *,
    name: str = "wind",
    landed: int = 32,
    hours: float = 4.0,
    min_flights: int = 30,
    draws: int = 5,
    stars: list[str] | tuple[str, ...] = (),
    airports: pd.DataFrame | None = None,
    notes: tuple[str, ...] = (),
) -> NodeData:
    """The NodeData of a table of flights (hgat.data.flights.table); the other arguments as `load` has them.

    airports: for the background of a map. Raises DataError for numbers out of range, too few flights or days, and a
    split that has no training flight of a route.
    """
    for what, got in (("landed", landed), ("min_flights", min_flights), ("draws", draws)):
        if got < 1:
            raise DataError(f"{what}: expected 1 or more, got {got}")
    if not hours > 0:
        raise DataError(f"hours: expected more than 0, got {hours}")
    table = table[table["air_time"].notna()]
    table = table[table["route"].map(table["route"].value_counts()) >= min_flights].reset_index(drop=True)
    days = np.unique(table["day"])
    if len(days) < 5:
        raise DataError(f"{name}: expected flights of 5 days or more to split, got {len(days)}")
    arrived, departed = (table[column].to_numpy() for column in ("arrived", "departed"))
    src, dst = seen(arrived, departed, table["day"].to_numpy(), landed, hours)
    age, edges, newer = departed[dst] - arrived[src], {}, 0.0
    for until, relation in AGES:
        here = (age > newer) & (age <= until)
        edges["landed", relation, "departing"] = src[here], dst[here], departed[dst][here].astype(np.int64)
        newer = until
    graph = from_events(edges, {"landed": len(table), "departing": len(table)})
    names, rows = _features(table)
    route, routes = pd.factorize(table["route"])
    made = _Fitted(name, table["air_time"], route, routes, rows, {"landed": arrived, "departing": departed})
    day = torch.tensor(table["day"].to_numpy(np.int64))
    splits = tuple(_split(day, torch.tensor(days).long(), number) for number in range(draws))
    label, feat = made(splits[0]["train"])
    clock = ("clock", "clock squared")
    return NodeData(
        name=name,
        graph=graph,
        feat=feat,
        target="departing",
        label=label,
        num_classes=1,
        class_names=("minutes",),
        numeric=True,
        splits=splits,
        columns={"landed": (*names, *clock, "excess"), "departing": (*names, *clock)},
        places=_places(table, stars, airports, len(names) + len(clock)),
        fitted=made,
        notes=notes,
    )


def seen(
    arrived: np.ndarray, departed: np.ndarray, day: np.ndarray, most: int, hours: float
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (landed, departing), numbers of flights: the `most` last that arrived before a departure, on its day.

    arrived, departed: [N] minutes. day: [N]. An arrival counts from the minute behind it on, for `hours`.
    """
    sources, targets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number in np.unique(day):
        here = np.flatnonzero(day == number)
        order = here[np.argsort(arrived[here], kind="stable")]
        end = np.searchsorted(arrived[order], departed[here], "left")
        start = np.searchsorted(arrived[order], departed[here] - 60 * hours, "left")
        count = end - np.maximum(start, end - most)
        targets.append(np.repeat(here, count))
        back = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        sources.append(order[np.repeat(end, count) - 1 - back])
    return np.concatenate(sources), np.concatenate(targets)


class _Fitted:
    """(label, feat) for the training flights of a split: differences from their routes' means, standardised rows."""

    def __init__(self, name, air_time, route, routes, rows, moments):
        self.name, self.routes = name, routes
        self.minutes, self.route = torch.tensor(air_time.to_numpy(np.float32)), torch.tensor(route)
        self.rows = {}
        for ntype, moment in moments.items():
            hour = moment[:, None] / 60 % 24
            self.rows[ntype] = torch.tensor(np.concatenate([rows, hour, hour**2], 1).astype(np.float32))

    def __call__(self, train):
        flown = torch.bincount(self.route[train], minlength=len(self.routes))
        if (flown == 0).any():
            odd = self.routes[int((flown == 0).nonzero()[0])]
            raise DataError(f"{self.name}: expected training flights of every route, got none of {odd}")
        usual = torch.zeros(len(flown)).index_add(0, self.route[train], self.minutes[train]) / flown
        excess = self.minutes - usual[self.route]
        feat = {}
        for ntype, rows in self.rows.items():
            known = rows[train]
            mean = known.nanmean(0)
            std = (known - mean).nan_to_num().square().mean(0).sqrt()
            # What is not known counts as the mean; a column of one value, an airline without training flights, stays.
            feat[ntype] = ((rows - mean) / torch.where(std > 1e-6, std, 1.0)).nan_to_num()
        feat["landed"] = torch.cat([feat["landed"], (excess / excess[train].std())[:, None]], 1)
        return excess, feat


def _features(table):
    """(names, [N, F] float64 with NaN where nothing is known): what is known of a flight at its departure."""
    north, east = np.cos(table["bearing"]), np.sin(table["bearing"])
    found = {"north": north, "east": east}
    found |= {"far north": north * table["distance"], "far east": east * table["distance"]}
    found |= {"distance": table["distance"], "distance squared": table["distance"] ** 2}
    found |= {name: table[name] for name in ("delay", "seats")}
    for column in ("origin", "carrier"):
        for value in sorted(table[column].unique()):
            found[f"{column} {value}"] = table[column] == value
    return tuple(found), np.stack([np.asarray(values, np.float64) for values in found.values()], 1)


def _split(day, days, number):
    """The flights of train, val and test: a draw of the days."""
    order = shuffled(days, number)
    first, second = (int(share * len(order)) for share in SHARES)
    parts = zip(("train", "val", "test"), (order[:first], order[first:second], order[second:]), strict=True)
    return {part: torch.isin(day, chosen).nonzero().squeeze(1) for part, chosen in parts}


def _places(table, stars, airports, excess):
    """The destinations, and, for the background, the airports of the mainland."""
    place, names = pd.factorize(table["dest"], sort=True)
    first = table.drop_duplicates("dest").set_index("dest").loc[names]
    background = None
    if airports is not None:
        inside = airports["lat"].between(24, 50) & airports["lon"].between(-125, -66)
        background = torch.tensor(airports.loc[inside, ["lon", "lat"]].to_numpy(np.float32))
    return Places(
        names=tuple(names),
        position=torch.tensor(first[["lon", "lat"]].to_numpy(np.float32)),
        of=dict.fromkeys(("landed", "departing"), torch.tensor(place)),
        home=(-73.9, 40.7),
        stars=tuple(stars),
        background=background,
        asks="flights to {}",
        seen="landed flights",
        value={"landed": excess},
        means="time in the air over the usual, in standard deviations",
    )
