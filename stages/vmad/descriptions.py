"""What a normal scene looks like, in words: the beginning of the instruction (section III-A), and t_x of Eq. 13.

The paper gives one such description, of gray metal plates in none of its data sets by name, so all texts here are ours:
`prompts/vmad/normal/general.txt`, one sentence with the object's name, and beside it sentences for each class of MVTec
AD and VisA, written without looking at what their defects are. Others are files of the user's, or the caption of a
normal training image of each class, by any engine.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS
from stages.base.errors import InputError
from stages.base.prompts import FOLDER, load_prompt, prompt_ids
from stages.base.texts import read_text
from stages.datasets.manifest import Image
from stages.vmad.config import GENERAL, NO_TEXT, SEG
from stages.vmad.data import IMAGE, spoken
from stages.vmad.memory import Class

FILES, CAPTIONED = "files", "captions"  # kinds, beside GENERAL and NO_TEXT
REMEDY = (
    "give --descriptions: a folder of <category>.txt files, or captions of normal training images of this manifest"
    " (adcli caption)"
)


@dataclass(frozen=True)
class Descriptions:
    """kind: general, none, the id of a packaged folder, files or captions; texts: of each class, "" where the
    instruction has none."""

    kind: str
    texts: Mapping[Class, str]

    @property
    def fingerprint(self) -> str:
        """The kind, and a digest of the texts."""
        return f"{self.kind} {hashlib.sha256(json.dumps(self.record()).encode()).hexdigest()[:16]}"

    def record(self) -> dict:
        """As a checkpoint keeps it."""
        return {"kind": self.kind, "texts": [[*name, text] for name, text in sorted(self.texts.items())]}


UNTOLD = Descriptions(NO_TEXT, {})


def recorded(record: Mapping | None) -> Descriptions:
    """Of a checkpoint; none where it does not say: the instructions that those were trained with had none. Raises
    KeyError, TypeError or ValueError for what no checkpoint holds."""
    if record is None:
        return UNTOLD
    return Descriptions(str(record["kind"]), {(d, c): str(text) for d, c, text in record["texts"]})


def place(source: str) -> dict[str, str]:
    """Where the texts were read, for the record; nothing where they are packaged."""
    packaged = source in ("", GENERAL, NO_TEXT) or not Path(source).exists()
    return {} if packaged else {"descriptions": os.path.abspath(source)}


def general(category: str) -> str:
    """The sentence for an object of which nothing but its name is known."""
    return one_line(load_prompt("vmad/normal/general").text.replace("{object}", spoken(category)), "")


def classes_of(images: Iterable[Image]) -> list[Class]:
    """In the order of their names."""
    return sorted({(i.dataset, i.category) for i in images})


def read_descriptions(source: str, images: Collection[Image], classes: Iterable[Class]) -> Descriptions:
    """A text for each of these classes. source: as `--descriptions` has it; images: of the whole manifest.

    Raises:
        InputError: nothing of the kind at `source`, a class of which it says nothing, or a text with a special token.
    """
    if source == GENERAL:
        return Descriptions(GENERAL, {name: general(name[1]) for name in classes})
    if source == NO_TEXT:
        return Descriptions(NO_TEXT, dict.fromkeys(classes, ""))
    if folder := _folder(source):
        kind = source if folder.is_relative_to(FOLDER) else FILES
        return Descriptions(kind, {name: _of_file(folder, name) for name in classes})
    if not Path(source).exists():
        raise InputError(
            f"--descriptions {source}: no such folder or captions; expected {GENERAL}, {NO_TEXT}, vmad/normal (ours of"
            " each class), a folder of <category>.txt files, or what adcli caption wrote"
        )
    return Descriptions(CAPTIONED, _captions(Path(source), images, classes))


def for_scoring(
    source: str, trained: Descriptions, images: Collection[Image], classes: Collection[Class]
) -> Descriptions:
    """What a trained model is told of these classes. source: "" = as in training.

    Raises:
        InputError: as `read_descriptions`; a class of which training was told something else, or, where its texts came
            from files or captions, nothing.
    """
    if not source:
        known = {name: trained.texts[name] for name in classes if name in trained.texts}
        strange = [name for name in classes if name not in known]
        if strange and trained.kind in (FILES, CAPTIONED):
            raise InputError(
                f"{'/'.join(strange[0])}: training was told by {trained.kind} what is normal, but nothing of this"
                f" class; {REMEDY}"
            )
        others = read_descriptions(trained.kind, images, strange).texts if strange else {}
        return Descriptions(trained.kind, known | dict(others))
    given = read_descriptions(source, images, classes)
    for name in classes:
        if name in trained.texts and trained.texts[name] != given.texts[name]:
            raise InputError(
                f"--descriptions {source}: of {'/'.join(name)} it says {_quoted(given.texts[name])}, and training was"
                f" told {_quoted(trained.texts[name])}; leave the option out, or train with these descriptions"
            )
    return given


def other_kind(trained: Descriptions, given: Descriptions) -> str:
    """A line when a model is told what is normal in another way than in training, else ''."""
    if trained.kind == given.kind:
        return ""
    return (
        f"descriptions of what is normal: {given.kind}, in training {trained.kind}; the model has not learned from such"
        " instructions"
    )


def of_object(trained: Descriptions, name: str) -> str:
    """What a model is told of an object that is named by hand. Raises InputError where training knew none of that name,
    and no general sentence either."""
    for (_, category), text in sorted(trained.texts.items()):
        if spoken(category) == spoken(name):
            return text
    if trained.kind == NO_TEXT:
        return ""
    if trained.kind not in (FILES, CAPTIONED):
        return general(name)
    raise InputError(
        f"--object {name}: training was told by {trained.kind} what is normal, but nothing of this object; say with"
        " --normal what a normal one looks like"
    )


def one_line(text: str, where: str) -> str:
    """The text on one line. Raises InputError when there is none, or a special token in it."""
    text = " ".join(text.split())
    if not text:
        raise InputError(f"{where}: no text; a description of a normal scene is expected")
    if IMAGE in text or SEG in text:
        raise InputError(f"{where}: holds {IMAGE} or {SEG}, which stand for an image and a mask")
    return text


def _folder(source: str) -> Path | None:
    """Of texts: packaged, by the beginning of their ids, or the user's; None for anything else."""
    if any(i.startswith(f"{source.rstrip('/')}/") for i in prompt_ids()):
        return FOLDER / source
    folder = Path(source)
    return folder if folder.is_dir() and next(folder.rglob("*.txt"), None) else None


def _of_file(folder: Path, name: Class) -> str:
    dataset, category = name
    places = [folder / dataset / f"{category}.txt", folder / f"{category}.txt", folder / "general.txt"]
    file = next((p for p in places if p.is_file()), None)
    if file is None:
        raise InputError(
            f"--descriptions {folder}: nothing of {dataset}/{category} there; expected {category}.txt, {dataset}/"
            f"{category}.txt, or general.txt for all others"
        )
    return one_line(read_text(file).replace("{object}", spoken(category)), str(file))


def _captions(path: Path, images: Collection[Image], classes: Iterable[Class]) -> dict[Class, str]:
    """The first caption of the first normal training image of each class that has one."""
    found: dict[str, tuple[tuple, str]] = {}
    for r in read_table(path, CAPTIONS).to_pylist():
        if r["text"] and not r["error"]:
            one = (r["prompt_id"], r["sample"]), r["text"]
            found[r["image_id"]] = min(found.get(r["image_id"], one), one)
    texts: dict[Class, str] = {}
    for i in sorted(images, key=lambda i: i.image_id):
        if i.split == "train" and i.label == 0 and i.image_id in found:
            texts.setdefault((i.dataset, i.category), found[i.image_id][1])
    for dataset, category in classes:
        if (dataset, category) not in texts:
            raise InputError(
                f"--descriptions {path}: no caption of a normal training image of {dataset}/{category}; caption its"
                " training images, or give a folder of <category>.txt files"
            )
    return {name: one_line(texts[name], f"{path}, {'/'.join(name)}") for name in classes}


def _quoted(text: str) -> str:
    return f"'{text[:60]}...'" if len(text) > 60 else f"'{text}'"
