"""A file of a run that was edited or damaged, or another's: resumed to the same result, or refused in one sentence."""

import copy
import json
import math
import re

import pytest
import torch
from safetensors.torch import save_file

import citations
from hgat.errors import DataError, HgatError, RecipeError
from hgat.train import Seeds, checkpoint, evaluate_folder, run, seeds, train

SETTINGS = ("train.epochs=4", "train.patience=4", "train.refit=true", "train.controls=['no_graph', 'uniform']")
PROGRESS = "progress.safetensors"
DEEP = json.loads("[" * 400 + "]" * 400)
ODD = (None, True, "x", "0", -1, math.nan, math.inf, 1e308, 10**30, [], [1], {}, {"a": 1}, DEEP)


class Killed(BaseException):
    """No `except Exception` may stop it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = citations.write(tmp_path_factory.mktemp("tampered"))
    (place / "r.toml").write_text(citations.RECIPE)
    return place


def go(place, out, *overrides, seeds=2, resume=True):
    return train(
        str(place / "r.toml"), place, seeds=seeds, out=out, overrides=(*SETTINGS, *overrides), resume=resume,
        progress=False,
    )  # fmt: skip


def outcome(folder):
    """All but the times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in (metrics, *metrics["controls"].values()):
        for key in ("seconds", "total_seconds"):
            part.pop(key, None)
    return metrics, (folder / "model.safetensors").read_bytes()


def key_of(about):
    return about["running"] and tuple(about["running"]["key"].values())


@pytest.fixture(scope="module")
def saved(place, tmp_path_factory):
    """{which fit runs: folder} of states that a run left when it was killed there, and the outcome of a whole one."""
    states, real = {}, checkpoint.write_bytes
    wanted = {("ours", 1, "select"): "select", ("ours", 1, "refit"): "refit", ("uniform", 0, "select"): "control"}

    def write(path, content):
        real(path, content)
        if path.name == PROGRESS:
            tensors, about = checkpoint.load_state(path)
            epoch = about["running"] and about["running"]["fit"]["fit"]["epoch"]
            if wanted.get(key_of(about)) == sought and epoch == 2:
                raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "SAVE_EVERY", -1.0)
        whole = tmp_path_factory.mktemp("whole")
        go(place, whole, resume=False)
        patch.setattr(checkpoint, "write_bytes", write)
        for sought in wanted.values():
            states[sought] = tmp_path_factory.mktemp(sought)
            with pytest.raises(Killed):
                go(place, states[sought], resume=False)
    return states, outcome(whole)


def places(value, path=()):
    """The paths to all values in JSON."""
    yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


# What may be another number of the same kind without anybody seeing it, but for the checksum; of what is finished,
# epochs too.
FREE = {"test", "val", "valid", "val_loss", "seconds", "best_metric", "best_loss"}


def free(path):
    return path[-1] in FREE or (path[0] in ("done", "selected") and path[-1] in ("epochs", "best_epoch"))


def of_a_script(what):
    """A script may leave out any score but that on validation, and make any number of steps in an epoch."""
    return (what.startswith("without") and what.endswith(".test")) or what.startswith("running.epoch = ")


def edits(about):
    """(what was done, changed copy) of what a file says beside its tensors: every value, in turn another."""
    count = 0
    for path in places(about):
        if not path:
            continue
        where, key, value = ".".join(map(str, path)), path[-1], at(about, path)
        for offset in range(4):
            odd = ODD[(4 * count + offset) % len(ODD)]
            if type(odd) is type(value) and odd == value:
                continue
            changed = copy.deepcopy(about)
            at(changed, path[:-1])[key] = odd
            yield f"{where} = {str(odd)[:20]}", changed
        count += 1
        changed = copy.deepcopy(about)
        del at(changed, path[:-1])[key]
        yield f"without {where}", changed
        if isinstance(value, dict):
            changed = copy.deepcopy(about)
            at(changed, path)["more_of_it"] = 1
            yield f"more in {where}", changed
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not free(path):
            for other in (value + 1, value + 0.5, -value - 1):
                changed = copy.deepcopy(about)
                at(changed, path[:-1])[key] = other
                yield f"{where} = {other}", changed


def retouched(tensors):
    """(what was done, changed copy) of the tensors: of each kind of name, in turn another type, shape or number."""
    kinds = {}
    for name in tensors:
        inner = name.removeprefix("fit.")
        kinds.setdefault(inner.split(".")[0] + inner.split(".")[-1], name)
    for name in kinds.values():
        tensor = tensors[name]
        made = {
            "double": tensor.double(),
            "halved": tensor.half(),
            "whole": tensor.long(),
            "flags": tensor.bool(),
            "longer": torch.cat([tensor.flatten(), tensor.flatten()]),
            "shorter": tensor.flatten()[:-1],
            "with a dimension": tensor[None],
            "empty": tensor.flatten()[:0],
            "scalar": tensor.flatten()[0].clone(),
        }
        if tensor.is_floating_point():
            for odd in (math.nan, math.inf):
                made[str(odd)] = torch.full_like(tensor, odd)
            if "optimizer." in name and "exp_avg_sq" in name or name.endswith(".step"):
                made["negative"] = -tensor - 1
        else:
            made["other bytes"] = torch.full_like(tensor, 255 if tensor.dtype == torch.uint8 else 1)
        for what, other in made.items():
            if other.shape != tensor.shape or other.dtype != tensor.dtype or not torch.equal(other, tensor):
                yield f"{name} {what}", {**tensors, name: other}
        yield f"without {name}", {k: v for k, v in tensors.items() if k != name}
        yield f"{name} under another name", {f"{k}.x" if k == name else k: v for k, v in tensors.items()}
    yield "another tensor", {**tensors, "other": torch.ones(2)}
    yield "none", {}


def refused_or_same(resume, expected):
    try:
        found = resume()
    except HgatError as error:
        message = str(error)
        assert "\n" not in message and ": expected " in message and ", got" in message, message
        return True
    assert found == expected
    return False


@pytest.mark.slow
@pytest.mark.parametrize("where", ["select", "refit", "control"])
def test_a_tampered_state(where, saved, place, tmp_path):
    states, expected = saved
    folder = tmp_path / "out"
    folder.mkdir()
    files = {path.name: path.read_bytes() for path in states[where].iterdir()}
    tensors, about = checkpoint.load_state(states[where] / PROGRESS)

    def put(tensors, about):
        for path in folder.iterdir():
            path.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        checkpoint.save_state(folder / PROGRESS, tensors, about)  # a checksum that fits

    def resume():
        go(place, folder)
        return outcome(folder)

    put(tensors, about)
    assert resume() == expected
    count = refused = 0
    tries = [(what, tensors, changed) for what, changed in edits(about)]
    tries += [(what, changed, about) for what, changed in retouched(tensors)]
    tries = tries[:: 3 if where == "select" else 7]
    for what, some, changed in tries:
        put(some, changed)
        try:
            refused += refused_or_same(resume, expected)
        except BaseException as error:
            raise AssertionError(what) from error
        count += 1
    assert refused > 0.9 * count > 74, (refused, count)


@pytest.mark.slow
def test_what_no_check_of_its_parts_would_see_its_checksum_does(saved, place, tmp_path):
    states, _ = saved
    content = (states["select"] / PROGRESS).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / PROGRESS
    for changed in [header, header + 1001, len(content) - 1, *range(30, header, 211)]:
        damaged = bytearray(content)
        damaged[changed] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="checkpoint: expected a file that hgat wrote"):
            checkpoint.load_state(path)
    path.write_bytes(content)
    tensors, about = checkpoint.load_tensors(path)  # with the checksum, which an editor knows nothing of
    for changed in (
        ({**tensors, "fit.model.layers.0.bias": tensors["fit.model.layers.0.bias"] + 1}, about),
        (tensors, {**about, "done": about["done"][:-1]}),
        (tensors, {**about, "done": [{**row, "test": 99.0} for row in about["done"]]}),
        (tensors, {**about, "crc32": "00000000"}),
        (tensors, {**about, "crc32": None, "running": None}),
    ):
        checkpoint.save_tensors(path, *changed)
        with pytest.raises(HgatError, match="expected .*, got .*without --resume"):
            for name in ("recipe.toml", "model.safetensors"):
                (tmp_path / name).write_bytes((states["select"] / name).read_bytes())
            go(place, tmp_path)


def test_a_state_without_a_checksum_is_read(saved, place, tmp_path):
    """Those of earlier releases have none."""
    states, _ = saved
    tensors, about = checkpoint.load_state(states["select"] / PROGRESS)
    checkpoint.save_tensors(tmp_path / PROGRESS, tensors, about)
    assert checkpoint.load_state(tmp_path / PROGRESS)[1] == about


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "9" * 10_000, '{"a": "\ud800"}', "nul", "\0"])
def test_metadata_that_are_none(text, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "t", metadata={"hgat": text.encode("utf-8", "replace").decode()})
    try:
        checkpoint.load_tensors(tmp_path / "t")
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
    else:
        assert text.startswith("{")


def test_another_runs_files(saved, place, tmp_path):
    states, _ = saved
    for name in ("recipe.toml", "model.safetensors", PROGRESS):
        (tmp_path / name).write_bytes((states["select"] / name).read_bytes())
    with pytest.raises(RecipeError, match="--resume: expected the recipe and settings"):
        go(place, tmp_path, "train.lr=0.5")
    (tmp_path / PROGRESS).write_bytes((states["select"] / "model.safetensors").read_bytes())
    with pytest.raises(RecipeError, match="--resume: expected the recipe and settings"):
        go(place, tmp_path)
    (tmp_path / PROGRESS).write_bytes((states["refit"] / PROGRESS).read_bytes()[:-9])
    with pytest.raises(DataError, match="checkpoint: expected a file that hgat wrote"):
        go(place, tmp_path)


@pytest.mark.slow
def test_tampered_weights(saved, place, tmp_path):
    """What `hgat eval` reads, and what a resumed run takes for the best seed's."""
    go(place, tmp_path, seeds=1, resume=False)
    path = tmp_path / "model.safetensors"
    tensors, about = checkpoint.load_tensors(path)
    _, _, scores, _ = evaluate_folder(tmp_path, place)
    tries = [(what, tensors, changed) for what, changed in edits(about)]
    tries += [(what, changed, about) for what, changed in retouched(tensors)]
    for what, some, changed in tries:
        checkpoint.save_tensors(path, some, changed)
        try:
            _, _, found, _ = evaluate_folder(tmp_path, place)
        except HgatError as error:
            wanted = "expected weights of the recipe beside it, got|expected a finite loss, got"
            assert re.search(wanted, str(error)) and "\n" not in str(error)
        else:
            assert found == scores, what
            assert some is tensors, what
    checkpoint.save_tensors(path, tensors, {**about, "seed": 5})
    with pytest.raises(DataError, match="checkpoint: expected the weights of seed 0 in .*, got those of 5"):
        go(place, tmp_path, seeds=1)
    (tmp_path / "recipe.toml").write_text("title = " + "[" * 5000)
    with pytest.raises(RecipeError, match="recipe: expected TOML"):
        evaluate_folder(tmp_path, place)


# ---- the seeds of a script of one's own ----


def script(out, kill=None, resume=True, kind=torch.optim.Adam):
    found, end = Seeds(out, 2, resume=resume, settings={"lr": 0.1}), []
    for one in found:
        model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Dropout(0.5))
        optimizer = kind(model.parameters(), lr=0.1)
        for epoch in one.epochs(5, model, optimizer):
            if kill == (one.seed, epoch - 1):
                raise Killed
            loss = model(torch.randn(11, 5)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            one.record(loss.item(), val=float(torch.rand(())), test=loss.item())
        end.append({name: value.tolist() for name, value in model.state_dict().items()})
    return found.summary(), end[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD])
def test_a_tampered_state_of_a_script(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(seeds, "SAVE_EVERY", -1.0)
    expected = script(tmp_path / "whole", kind=kind)
    with pytest.raises(Killed):
        script(tmp_path / "out", kill=(1, 3), kind=kind)
    path = tmp_path / "out" / PROGRESS
    tensors, about = checkpoint.load_state(path)
    assert about["running"]["epoch"] == 3
    assert script(tmp_path / "out", kind=kind) == expected
    tries = [(what, tensors, changed) for what, changed in edits(about)]
    tries += [(what, changed, about) for what, changed in retouched(tensors)]
    refused = 0
    for what, some, changed in tries:
        if of_a_script(what):
            continue
        checkpoint.save_state(path, some, changed)
        try:
            refused += refused_or_same(lambda: script(tmp_path / "out", kind=kind), expected)
        except BaseException as error:
            raise AssertionError(what) from error
    assert refused > 0.9 * len(tries) > 74
