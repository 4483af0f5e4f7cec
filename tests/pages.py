"""What a page holds for its script: rows, texts and pictures, read back."""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PageData:
    """data, pictures: as the page has them."""

    data: dict
    pictures: dict[str, str]

    def text(self, number):
        return "" if number is None or number < 0 else self.data["texts"][number]

    def rows(self):
        """One dictionary per row of all methods, with the texts in the place of their numbers."""
        found = []
        for number, method in enumerate(self.data["methods"]):
            columns = method["rows"]
            for n in range(len(next(iter(columns.values()), []))):
                row = {name: column[n] for name, column in columns.items()}
                texts = ("text", "nearText", "nearKind", "error", "question", "answer", "level", "how", "marks")
                row |= {name: self.text(row[name]) for name in texts if name in row}
                image = row["image"]
                row |= {
                    name: self.text(self.data["images"][name][image]) for name in ("id", "file", "problem", "outline")
                }
                row["nearFile"] = self.text(self.data["images"]["file"][row["near"]]) if row["near"] >= 0 else ""
                row["choices"] = [self.text(c) for c in row.get("choices", ())]
                row |= {"picture": self.pictures.get(f"p{image}"), "heat": self.pictures.get(f"h{number}-{image}")}
                row |= {"method": self.text(method["name"]), "label": self.data["images"]["label"][image]}
                found.append(row)
        return found


def page_data(path: Path) -> PageData:
    page = path.read_text()
    parts = [
        json.loads(re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)[1])
        for name in ("data", "pictures")
    ]
    return PageData(*parts)
