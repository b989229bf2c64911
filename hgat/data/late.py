"""Late: will this flight leave late, asked one hour before its scheduled departure, from what others were just doing?

Format: the flights that left New York in 2013, see hgat.data.flights; nothing is downloaded, and the folder is not
used. Events are flights, entities are planes (tail numbers), airports (of departure), airlines and routes. A flight is
asked for `ahead` minutes before its scheduled departure, and is known from its actual departure on. The label is 1 of a
flight that left `minutes` late or more. Training is on the flights scheduled before the month `val_month`,
validation from there on, the test from `test_month` on.

What is known of a flight when it is asked for: the hour of its scheduled departure (one-hot), the day of the week, the
weather at its airport in the last hour that had ended, the distance, its airport and its airline (one-hot), seats and
age of its plane. What is known once it has left: whether it was late, how late, and whether it was cancelled. Numbers
are scaled by constants, so that no later month has a part in them.

Traps:
- Cancelled flights have no label and are context alone, as known at their scheduled departure: when they were cancelled
  is not told.
- A flight that is late is known late: what the last flights of an airport say is better than the truth.
- A flight without a tail number has no plane: no edge in that relation. One whose plane is in no register has zeros in
  the place of seats and age, and a column that says so; so has missing weather.
- Weather is measured, not forecast.
- Nothing is known of a plane between its departures from New York.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hgat.data import flights
from hgat.data.card import Card
from hgat.data.sets import StreamData
from hgat.errors import DataError
from hgat.graph.events import from_events

__all__ = ["load"]

RELATIONS = {"plane": "flown by", "airport": "from", "airline": "operated by", "route": "on"}
# (what is subtracted, what the rest is divided by): to numbers of the size of one, in the units of the files.
SCALES = {
    "temp": (55.0, 20.0),
    "dewp": (40.0, 20.0),
    "humid": (60.0, 20.0),
    "wind_speed": (10.0, 6.0),
    "wind_gust": (0.0, 20.0),
    "precip": (0.0, 0.05),
    "pressure": (1017.0, 8.0),
    "visib": (9.0, 2.0),
}
LONGEST = 180.0  # minutes of delay, and as many more say no more


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    minutes: int = 15,
    ahead: int = 60,
    months: list[int] | None = None,
    val_month: int = 9,
    test_month: int = 10,
) -> StreamData:
    """Load the flights as a stream of labelled events.

    minutes: from how late on a flight is late. ahead: minutes before the scheduled departure at which it is asked for.
    months: the months that are read, None for all. val_month, test_month: where validation and test begin.
    """
    if minutes < 1 or ahead < 0:
        raise DataError(f"{card.name}: expected minutes = 1 or more and ahead = 0 or more, got {minutes} and {ahead}")
    if not 1 < val_month < test_month <= 12:
        raise DataError(f"{card.name}: expected 1 < val_month < test_month <= 12, got {val_month} and {test_month}")
    frames = flights.tables(card, verify=verify)
    table = flights.table(frames["flights"], frames["airports"], frames["planes"], months=months)
    for part, begin, end in (("train", 1, val_month), ("val", val_month, test_month), ("test", test_month, 13)):
        if not table["month"].between(begin, end - 1).any():
            raise DataError(f"{card.name}: expected flights in months {begin} to {end - 1} for {part}, got none")
    asked = table["scheduled"].to_numpy() - ahead
    known = table["scheduled"].to_numpy() + table["delay"].fillna(0.0).to_numpy()
    names = {
        "plane": table["tailnum"].where(table["tailnum"] != ""),
        "airport": table["origin"],
        "airline": table["carrier"],
        "route": table["route"],
    }
    links, sizes = {}, {"flight": len(table)}
    first: dict[str, Any] = {}
    for ntype, column in names.items():
        place, found = pd.factorize(column, sort=True)
        here = (place >= 0).nonzero()[0]
        links["flight", RELATIONS[ntype], ntype] = here, place[here], known[here].astype(np.int64)
        sizes[ntype] = len(found)
        first[ntype] = table.iloc[here].groupby(place[here]).first()  # of each entity, in the order of its number
    late = table["delay"].to_numpy() >= minutes
    cancelled = table["cancelled"].to_numpy()
    delay = table["delay"].fillna(0.0).clip(-LONGEST, LONGEST).to_numpy() / 60.0
    planes = first["plane"]
    feat: dict[str, torch.Tensor | None] = {
        "flight": _rows(_when(table), _weather(frames["weather"], table["origin"], asked)),
        "plane": _rows(*_scaled(planes["seats"], 150.0, 80.0), *_scaled(planes["built"], 2000.0, 8.0)),
        "airport": torch.eye(sizes["airport"]),
        "airline": torch.eye(sizes["airline"]),
        "route": _rows(first["route"]["distance"].to_numpy() / 1000.0),
    }
    return StreamData(
        name=card.name if months is None else f"{card.name} in months {', '.join(map(str, months))}",
        graph=from_events(links, sizes),
        feat=feat,
        target="flight",
        asked=torch.from_numpy(asked),
        label=torch.from_numpy(np.where(cancelled, -1, late).astype(np.int64)),
        val_time=_beginning(val_month) - ahead,
        test_time=_beginning(test_month) - ahead,
        after=_rows(late, cancelled, delay),
        notes=card.notes,
    )


def _beginning(month):
    """Minutes from the year's beginning to a month's, both in New York."""
    return int((pd.Timestamp(2013, month, 1, tz=flights.NEW_YORK) - flights.START).total_seconds() // 60)


def _rows(*columns: Any) -> torch.Tensor:
    """[N, F] float32 of columns [N] and of tables [N, *]."""
    return torch.from_numpy(np.column_stack([np.asarray(column, np.float32) for column in columns]))


def _scaled(values, middle, scale):
    """(values around 0, zero where there is none, whether there is none)."""
    missing = np.isnan(values.to_numpy(float))
    return np.where(missing, 0.0, (values.to_numpy(float) - middle) / scale), missing


def _when(table):
    """[N, 24 + 7]: the hour of the day and the day of the week of the scheduled departure; 2013 began on a Tuesday."""
    return np.column_stack([np.eye(24)[table["minute"] // 60], np.eye(7)[table["day"] % 7]])


def _weather(weather, origin, asked):
    """[N, 2 * 8 + 2]: every measure and whether it is missing, and the wind as a vector."""
    found = flights.weather_before(weather, origin, asked)
    columns = [part for name, scale in SCALES.items() for part in _scaled(found[name], *scale)]
    angle, speed = np.radians(found["wind_dir"]), found["wind_speed"] / 10.0
    return np.column_stack([*columns, *((speed * part).fillna(0.0) for part in (np.sin(angle), np.cos(angle)))])
