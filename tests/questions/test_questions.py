"""Questions: the table that every stage reads."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.tables import MANIFEST, QUESTIONS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.manifest import read_manifest
from stages.questions.table import check_images, problem, read_questions

QUIET = RunOptions(quiet=True)
GOOD = {
    "question_id": "q1",
    "image_id": "d/a.png",
    "reference_id": "d/n.png",
    "group": "g",
    "level": "standard",
    "question": "Is it normal?",
    "choices": ["yes", "so-so", "no"],
    "answer": "yes",
    "ranked": True,
}


def manifest_at(folder, paths, root="data"):
    """A foreign manifest below `folder` whose images need not exist; image ids are `d/<path>`."""
    rows = [
        {
            "image_id": f"d/{p}",
            "path": p,
            "dataset": "d",
            "category": "c",
            "split": "test",
            "label": 0,
            "mask_paths": [],
        }
        for p in paths
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), folder / "m.parquet")
    return folder / "m.parquet", folder / root


def table_of(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows), schema=QUESTIONS.schema), path)
    return path


# -- the table ----------------------------------------------------------------------------------------


def test_questions_are_read_and_failed_rows_kept_apart(tmp_path):
    free = GOOD | {"question_id": "q0", "choices": [], "answer": "a scratch", "ranked": None, "reference_id": None}
    unknown = GOOD | {"question_id": "q2", "answer": None, "ranked": False}
    failed = {"question_id": "q3", "image_id": "x", "level": "standard", "choices": [], "error": "no such image"}
    found = read_questions(table_of(tmp_path / "q.parquet", failed, GOOD, unknown, free))
    assert [q.question_id for q in found.rows] == ["q0", "q1", "q2"] and found.failed == {"q3": "no such image"}
    assert found.rows[0].ranked is False and found.rows[0].choices == () and found.rows[0].reference_id is None
    assert found.rows[1].choices == ("yes", "so-so", "no") and found.rows[1].ranked is True
    assert found.rows[2].answer is None
    changed = read_questions(table_of(tmp_path / "r.parquet", failed, GOOD | {"level": "other"}, unknown, free))
    again = read_questions(table_of(tmp_path / "s.parquet", free, failed, unknown, GOOD))
    assert found.fingerprint == again.fingerprint != changed.fingerprint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choices": ["yes"]}, "two answers or more in `choices`, this one has 1"),
        ({"choices": [], "answer": "yes"}, "this one has 0"),
        ({"answer": "no"}, "`answer` is not the first of the `choices`"),
        ({"answer": None}, "`answer` is not the first of the `choices`"),
        ({"answer": "perhaps", "ranked": False}, "'perhaps' is none of the `choices`"),
        ({"question": " "}, "column `question` is empty"),
        ({"question": None}, "column `question` is empty"),
        ({"choices": ["yes", "yes", "no"]}, "the same"),
        ({"choices": ["yes", ""]}, "one of its `choices` is empty"),
    ],
)
def test_what_a_question_must_not_be(tmp_path, change, said):
    with pytest.raises(InputError, match="q.parquet: question q1: ") as e:
        read_questions(table_of(tmp_path / "q.parquet", GOOD | change))
    assert said in str(e.value) and "\n" not in str(e.value)
    assert problem(GOOD) is None


def test_duplicate_ids_and_tables_without_questions(tmp_path):
    with pytest.raises(InputError, match=r"2 rows with one key \(question_id=q1\)"):
        read_questions(table_of(tmp_path / "q.parquet", GOOD, GOOD | {"level": "other"}))
    failed = {"question_id": "q3", "image_id": "x", "level": "s", "choices": [], "error": "no such image"}
    with pytest.raises(InputError, match="no question that can be asked .1 rows with `error`; the first: no such"):
        read_questions(table_of(tmp_path / "q.parquet", failed))


def test_images_of_questions(tmp_path):
    path, root = manifest_at(tmp_path, ["a.png", "n.png", "z.png"])
    manifest = read_manifest(path, root)
    used = check_images(read_questions(table_of(tmp_path / "q.parquet", GOOD)), manifest)
    assert sorted(used) == ["d/a.png", "d/n.png"] and used["d/a.png"].file == root / "a.png"
    for change, said in (
        ({"image_id": "d/b.png"}, "its test image d/b.png is not in the manifest"),
        ({"reference_id": "d/b.png"}, "its reference image d/b.png is not in the manifest"),
        ({"reference_id": "d/a.png"}, "d/a.png is both its test image and its reference image"),
    ):
        questions = read_questions(table_of(tmp_path / "q.parquet", GOOD | change))
        with pytest.raises(InputError, match=said):
            check_images(questions, manifest)


# -- paths --------------------------------------------------------------------------------------------


# -- formats ------------------------------------------------------------------------------------------
