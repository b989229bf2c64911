"""How a docstring becomes Markdown: equations stay as they are, shapes and papers are marked."""

import re

import griffe

__all__ = ["Docstrings", "markdown"]

# [N, F], [N_dst, H, D], [*], [E]: letters of docs/notation.md, numbers, stars and dots.
SHAPE = re.compile(r"\[(?:\*|\.\.\.|\d+|[A-Z])[\w ,*+/'.-]*\](?!\()")
PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
OWN_LINE = re.compile(r"(Shapes|Raises|Returns|Paper|Papers|Differs)\b")


def markdown(text: str) -> str:
    """The Markdown of a docstring of hgat's: indented lines are code, what else it says is text."""
    lines: list[str] = []
    for line in text.splitlines():
        code = line.startswith("    ")
        if lines and lines[-1] and (OWN_LINE.match(line) or (code and not lines[-1].startswith("    "))):
            lines.append("")
        elif lines and lines[-1].startswith("    ") and line and not code:
            lines.append("")
        lines.append(line if code else _text(line))
    return "\n".join(lines)


def _text(line):
    """A line of text: what is in backticks stays, shapes become code, papers links; < and * are no markup."""
    pieces = re.split(r"(`[^`]*`)", line)
    for at in range(0, len(pieces), 2):
        piece = PAPER.sub(lambda m: f"\0{m[1]}\0", pieces[at])
        parts = re.split(f"({SHAPE.pattern})", piece)
        parts[::2] = [re.sub(r"([*_<\[\]|\\])", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = [f"`{part}`" for part in parts[1::2]]
        pieces[at] = re.sub("\0(.*?)\0", r"[arXiv:\1](https://arxiv.org/abs/\1)", "".join(parts))
    return "".join(pieces)


class Docstrings(griffe.Extension):
    """Griffe reads every docstring as `markdown` gives it."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
