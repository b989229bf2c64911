"""How far a fit is: a bar on a terminal, else a line now and then."""

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["Progress"]

EVERY = 10.0  # seconds between two lines of a log
# What is looked at stands first: a narrow terminal cuts the end.
FORM = "{desc} {n_fmt}/{total_fmt} |{bar:8}| [{elapsed}<{remaining}]{postfix}"


class Progress:
    """What is said of one fit on stderr while it runs. title: what is trained. total: epochs at most; done: those that
    are behind it. metric: its name. quiet: nothing is said."""

    def __init__(self, title: str, metric: str, total: int, done: int = 0, quiet: bool = False) -> None:
        self.title, self.metric, self.total, self.quiet = title, metric.replace("_", " "), total, quiet
        self.bar: Any = None
        self.said = time.monotonic()
        if not quiet and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, bar_format=FORM, leave=False, file=sys.stderr)
            self.bar.set_postfix_str(title, refresh=False)

    def step(self, epoch: int, loss: float, val: float) -> None:
        """An epoch has ended, with this loss and this score on validation, in percent."""
        if self.bar is not None:
            self.bar.set_description_str(f"val {self.metric} {val:.1f}, loss {loss:.3f}", refresh=False)
            self.bar.update()
        elif time.monotonic() - self.said >= EVERY:
            self._say(f"epoch {epoch} of at most {self.total}, loss {loss:.3f}, val {self.metric} {val:.1f}")

    def end(self, result: dict) -> None:
        """The fit has ended with this result."""
        if self.bar is None:
            chosen = f"val {self.metric} {result['val']:.1f} at epoch {result['best_epoch']:.0f}"
            self._say(f"{result['epochs']} epochs in {result['seconds']:.1f} s, {chosen}")

    def _say(self, text):
        if not self.quiet:
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)
            self.said = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
