"""What mkdocstrings reads: the docstrings of the sources as Markdown."""

import griffe

from prose import markdown

__all__ = ["Docstrings"]


class Docstrings(griffe.Extension):
    """Griffe reads every docstring as `markdown` gives it."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
