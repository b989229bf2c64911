import errno
import json
import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from hgat import files
from hgat.errors import DataError, OutputError
from hgat.train import checkpoint
from hgat.train.checkpoint import load_tensors, make_folder, remove, save_tensors, write_text

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor(3),
    "c": torch.empty(0, 5),
    "d": torch.ones(2).bool(),
}


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text and ": expected " in text and "got" in text and "None" not in text
    return text


def test_tensors_and_what_is_written_beside_them_come_back(tmp_path):
    about = {
        "float": 0.1 + 0.2,
        "list": [1, None, True],
        "text": "ä 😀 \n",
        "none": None,
        "big": float("inf"),
    }
    save_tensors(tmp_path / "t", TENSORS, about)
    tensors, got = load_tensors(tmp_path / "t")
    assert got == about and tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype


def test_tensors_that_share_memory_or_are_not_contiguous(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {"base": base, "again": base, "turned": base.t(), "part": base[:, 1:3]}
    save_tensors(tmp_path / "t", tensors, {})
    got, _ = load_tensors(tmp_path / "t")
    for name, tensor in tensors.items():
        assert torch.equal(got[name], tensor)


def test_what_is_saved_is_not_what_training_goes_on_with(tmp_path):
    parameter = torch.nn.Parameter(torch.zeros(3))
    save_tensors(tmp_path / "t", {"p": parameter}, {})
    got, _ = load_tensors(tmp_path / "t")
    got["p"] += 1
    assert parameter.tolist() == [0, 0, 0]
    assert load_tensors(tmp_path / "t")[0]["p"].tolist() == [0, 0, 0]


def test_files_are_readable_for_others_as_any_file_is(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(step, number, tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    monkeypatch.setattr(files.os, step, failing(number))
    with pytest.raises(OutputError) as error:
        write_text(path, "new")
    assert one_sentence(error) == f"metrics.json: expected to write 3 bytes to {tmp_path}, got: {os.strerror(number)}"
    monkeypatch.undo()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_is_interrupted_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    path = tmp_path / "metrics.json"
    write_text(path, "old")
    monkeypatch.setattr(files.os, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["metrics.json"]


def test_the_new_file_is_whole_before_it_takes_the_name(tmp_path, monkeypatch):
    path, seen, real = tmp_path / "file", [], os.replace

    def replace(source, target):
        seen.append((path.read_text(), os.path.getsize(source)))
        real(source, target)

    write_text(path, "old")
    monkeypatch.setattr(files.os, "replace", replace)
    write_text(path, "n" * 70_000)
    assert seen == [("old", 70_000)] and path.read_text() == "n" * 70_000


def test_what_a_killed_write_left_is_written_over(tmp_path, monkeypatch):
    path = tmp_path / "file"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", lambda *_: None)
        patch.setattr(checkpoint.Path, "unlink", lambda *_, **__: None)
        write_text(path, "half")
    left = os.listdir(tmp_path)
    assert len(left) == 1 and left != ["file"]
    write_text(path, "whole")
    assert os.listdir(tmp_path) == ["file"] and path.read_text() == "whole"


def test_an_error_without_a_reason_still_has_one(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the cable is loose")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OutputError) as error:
        write_text(tmp_path / "file", "x")
    assert one_sentence(error).endswith("the cable is loose")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "x", tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(OutputError) as error:
            save_tensors(path, TENSORS, {})
        one_sentence(error)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_folders(tmp_path):
    made = make_folder(tmp_path / "a" / "b")
    assert made.is_dir() and os.listdir(made) == [] and make_folder(str(made)) == made
    (tmp_path / "file").write_text("kept")
    for bad in (tmp_path / "file", tmp_path / "file" / "x", "/proc/none/x", tmp_path / ("n" * 300)):
        with pytest.raises(OutputError) as error:
            make_folder(bad)
        assert one_sentence(error).startswith(f"--out: expected a folder that can be written to, got {bad}: ")
    assert (tmp_path / "file").read_text() == "kept"


def test_remove(tmp_path):
    (tmp_path / "file").write_text("")
    remove(tmp_path / "file")
    remove(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as error:
        remove(tmp_path / "folder")
    one_sentence(error)
    assert os.listdir(tmp_path) == ["folder"]


def refuse(path):
    with pytest.raises(DataError, match="checkpoint: expected a file") as error:
        load_tensors(path)
    one_sentence(error)


def test_a_checkpoint_that_is_cut_anywhere(tmp_path):
    path = tmp_path / "t"
    save_tensors(path, TENSORS, {"x": 1})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        refuse(path)
    path.write_bytes(whole)
    load_tensors(path)


def test_a_checkpoint_whose_header_is_damaged(tmp_path):
    """Every byte of the header, one at a time: an error of ours or, where it belongs to `about`, a value."""
    path = tmp_path / "t"
    save_tensors(path, TENSORS, {"x": "yyyy"})
    whole = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for place in range(header):
        damaged = whole.copy()
        damaged[place] ^= 0x11
        path.write_bytes(damaged)
        try:
            load_tensors(path)
        except DataError:
            refused += 1
    assert refused > header / 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"PK\x03\x04" + b"\0" * 60,
        b"\x80\x04.",
        b"\xff" * 999,
        b"<html>not found</html>",
        b"\0" * 4096,
    ],
)
def test_a_file_of_another_kind(content, tmp_path):
    (tmp_path / "t").write_bytes(content)
    refuse(tmp_path / "t")


def test_nothing_or_a_folder_or_a_path_under_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path, tmp_path / "file" / "x"):
        refuse(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"hgat": "{"}, {"hgat": "[]"}, {"hgat": "3"}])
def test_safetensors_of_another_program(metadata, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "t", metadata=metadata)
    refuse(tmp_path / "t")


def test_reading_runs_no_code(tmp_path):
    """torch.save writes a pickle, which could."""
    torch.save({"a": torch.ones(2)}, tmp_path / "t")
    refuse(tmp_path / "t")


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_an_optimiser_goes_on_as_it_was(kind, tmp_path):
    def step(optimizer, parameter, times):
        for k in range(times):
            parameter.grad = torch.full_like(parameter, 0.3) * (k + 1)
            optimizer.step()

    def fresh():
        parameter = torch.nn.Parameter(torch.arange(4.0))
        return kind([parameter, torch.nn.Parameter(torch.ones(2))], lr=0.1, weight_decay=0.01), parameter

    one, first = fresh()
    step(one, first, 3)
    tensors, numbers = checkpoint.pack_optimizer(one)
    save_tensors(tmp_path / "t", {**tensors, "first": first}, json.loads(json.dumps(numbers)))
    step(one, first, 2)

    other, second = fresh()
    tensors, numbers = load_tensors(tmp_path / "t")
    second.data = tensors.pop("first")
    checkpoint.unpack_optimizer(other, tensors, numbers)
    step(other, second, 2)
    assert torch.equal(first, second)
    with torch.no_grad():
        second += 1
    assert not torch.equal(first, second)
