"""How the text of a docstring becomes Markdown: equations stay as they are, shapes and papers are marked."""

import re

__all__ = ["markdown"]

# [N, F], [N_dst, H, D], [*], [E]: letters of docs/notation.md, numbers, stars and dots.
SHAPE = re.compile(r"(\[(?:\*|\.\.\.|\d+|[A-Z])[\w ,*+/'.-]*\](?!\())")
PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
OWN_PARAGRAPH = re.compile(r"(Shapes|Raises|Returns|Papers?|Differs)\b")
INDENT = "    "


def markdown(text: str) -> str:
    """The Markdown of a docstring of hgat's: indented lines are code, what else it says is text."""
    lines: list[str] = []
    for line in text.splitlines():
        code, after_code = line.startswith(INDENT), bool(lines) and lines[-1].startswith(INDENT)
        if lines and lines[-1] and line and (code != after_code or OWN_PARAGRAPH.match(line)):
            lines.append("")
        lines.append(line if code else _text(line))
    return "\n".join(lines)


def _text(line):
    """A line of text: what is in backticks stays, shapes become code, papers links, and nothing else is markup."""
    pieces = re.split(r"(`[^`]*`)", line)
    for at in range(0, len(pieces), 2):
        parts = SHAPE.split(pieces[at])
        parts[::2] = [re.sub(r"([*_<\[\]|\\])", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = [f"`{part}`" for part in parts[1::2]]
        pieces[at] = PAPER.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", "".join(parts))
    return "".join(pieces)
