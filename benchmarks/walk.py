"""The walk of a recipe's name through `hgat train`: which rooms it enters, over how many files and frames.

    python -m benchmarks.walk gat-cora --root DATA

One seed, one epoch, no controls. A room is a package or file right under hgat/. Counted from the command line's first
line to the kernel's: the files whose code runs, the frames that stand on the stack when the first operator of the
training is called, and how often the walk comes back to a room that it had left.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import hgat
from hgat.cli import main as command

HOME = Path(hgat.__file__).parent


def walk(recipe, root):
    """(files in the order of their first frame, the stack at the first operator, rooms on that stack in order)."""
    files, stack = [], []

    def entered(frame, event, _):
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(str(HOME)):
            return
        place = Path(path).relative_to(HOME)
        if str(place) not in files:
            files.append(str(place))
        called = frame.f_code.co_name
        if not stack and place.parts[0] == "ops" and called.endswith("_attention") and called[0] != "_":
            while frame is not None:
                if frame.f_code.co_filename.startswith(str(HOME)):
                    stack.append((str(Path(frame.f_code.co_filename).relative_to(HOME)), frame.f_code.co_qualname))
                frame = frame.f_back

    with tempfile.TemporaryDirectory() as out:
        arguments = ["train", recipe, "--out", out, "--seeds", "1", "--set", "train.epochs=1"]
        arguments += ["--set", "train.controls=[]", *(["--root", root] if root else [])]
        sys.setprofile(entered)
        try:
            status = command(arguments)
        finally:
            sys.setprofile(None)
    if status:
        raise SystemExit(status)
    return files, stack[::-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", nargs="?", default="gat-cora")
    parser.add_argument("--root", default=os.environ.get("HGAT_DATA"))
    args = parser.parse_args()
    files, stack = walk(args.recipe, args.root)
    rooms = [Path(place).parts[0].removesuffix(".py") for place, _ in stack]
    visits = [room for k, room in enumerate(rooms) if k == 0 or rooms[k - 1] != room]
    print(f"\nfrom the command to the first operator, {len(stack)} frames:")
    for place, name in stack:
        print(f"  {place:<28} {name}")
    again = len(visits) - len(set(visits))
    print(f"rooms: {' > '.join(visits)}; entered again: {again}")
    above = [f for f in files if f.split("/")[0] in ("cli.py", "train", "tasks", "models", "data", "explain")]
    print(f"files of hgat that ran: {len(files)}, of them above the layers {len(above)}: {', '.join(sorted(above))}")


if __name__ == "__main__":
    main()
