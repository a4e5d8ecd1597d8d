"""AAN: is there a citation between two papers of the ACL Anthology?  Two documents as characters."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from ..errors import DataError
from .separated import separated
from .task import CLASSIFICATION, Task
from .token_data import TokenData, named_files
from .token_store import Row

FILES = {
    "train": "new_aan_pairs.train.tsv",
    "validation": "new_aan_pairs.eval.tsv",
    "test": "new_aan_pairs.test.tsv",
}
COLUMNS = ("label", "id1", "id2", "text1", "text2")
_CLASSES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


class AAN(TokenData):
    """AAN of Long Range Arena (Radev et al. 2013; Tay et al. 2020): the published files, or generated ones.

    Fields are taken as they are in the file, characters of byte literals included, as the published pipeline does.
    """

    task = Task(
        name="aan",
        title="AAN",
        kind=CLASSIFICATION,
        length=4000,
        n_inputs=None,
        n_outputs=2,
        pair=True,
        classes=("unrelated", "related"),
        expected="aan/new_aan_pairs.train.tsv, new_aan_pairs.eval.tsv and new_aan_pairs.test.tsv, with the columns "
        "label, id1, id2, text1, text2 and no header",
        paper={"pb": 91.20, "s4": 90.90, "s4d_legs": 89.46, "s4d_inv": 91.09, "s5": 88.26, "transformer": 57.46},
    )
    level = "characters"
    places = ("aan", "tsv_data")
    published: ClassVar = {"train": 147_086, "validation": 18_090, "test": 17_437}
    source = "the sizes that arXiv 2208.04933 states"

    def _files(self) -> Mapping[str, Path]:
        return named_files(self._place(FILES.values()), FILES.values(), self._wanted())

    def _rows(self, part: str) -> Iterator[Row]:
        path = self._place(FILES.values()) / FILES[part]
        for line, fields in separated(path, csv.excel_tab):
            if len(fields) != len(COLUMNS):
                raise DataError(
                    f"{path}, line {line}: {len(fields)} columns instead of {', '.join(COLUMNS)}. The file is damaged; "
                    "get it again."
                )
            label, *_, first, second = fields
            if label not in _CLASSES:
                raise DataError(f"{path}, line {line}: label {label[:40]!r}; expected 0 or 1.")
            for name, field in zip(COLUMNS[1:], fields[1:], strict=True):
                if not field or "\0" in field:
                    what = "holds bytes of value 0" if field else "is empty"
                    raise DataError(f"{path}, line {line}: {name} {what}. The file is damaged; get it again.")
            yield Row((first, second), _CLASSES[label])
