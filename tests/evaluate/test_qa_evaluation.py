"""Answers and judgements -> metrics by hand, SAGE's tables, the page, the command."""

import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from stages.artifacts.reader import read_table
from stages.artifacts.tables import ANSWERS, JUDGEMENTS, METRICS, QUESTIONS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.evaluate.questions import EvaluateQaConfig, run
from stages.questions import judge
from stages.questions.table import Question
from stages.report.grid import published
from stages.report.sage import cell, split_name
from stages.report.sage_figures import Curve, by_setting, curves_by_setting, group_accuracy
from stages.results.answer_rows import grown
from stages.results.answers import AnswerRecord, QuestionSource
from tests.pages import page_data
from tests.qa import RANKED, question, write, write_manifest

QUIET = RunOptions(quiet=True)
ONE, ZERO = "vlm-qa/m/1-shot", "vlm-qa/m/0-shot"


def answer(question_id, choice=None, method=ONE, **columns):
    parsed = "strict" if choice is not None else columns.pop("parsed", None)
    return {"question_id": question_id, "method": method, "choice": choice, "parsed": parsed} | columns


@pytest.fixture
def config(tmp_path, save_image):
    """Two groups of five about two cables, one group of two about a screw, one open question.

    One-shot: a0-a4 all right; b0-b3 right, b4 unparsable; s0 right, s1 failed. Zero-shot: a0 right, a1 wrong.
    """
    rows = [
        ("mpdd/cable/a", "cable", "test", 1),
        ("mpdd/cable/b", "cable", "test", 0),
        ("mpdd/screw/s", "screw", "test", 1),
        ("mpdd/cable/ref", "cable", "train", 0),
    ]
    manifest = write_manifest(tmp_path, save_image, rows)
    levels = ("standard", "standard", "identification", "identification", "reasoning")
    asked = [
        question(f"{n}{i}", f"mpdd/cable/{n}", reference_id="mpdd/cable/ref", level=level)
        for n in "ab"
        for i, level in enumerate(levels)
    ]
    asked += [question(f"s{i}", "mpdd/screw/s", reference_id=None, level="standard") for i in (0, 1)]
    free = {"choices": [], "answer": "The left end is cut.", "ranked": None, "level": "reasoning", "reference_id": None}
    asked += [question("open", "mpdd/cable/a", **free), question("lost", "mpdd/cable/a", error="no such field")]
    answers = [
        *(answer(f"a{i}", 0, response=f"B. {RANKED[0]}") for i in range(5)),
        *(answer(f"b{i}", 0) for i in range(4)),
        answer("b4", parsed="unparsable", response="Hm.", error="none"),
        answer("s0", 0, response="A"),
        answer("s1", error="no such image"),
        answer("open", response="The left end is cut."),
        answer("lost", error="no such field"),
        answer("a0", 0, ZERO),
        answer("a1", 3, ZERO),
        answer("else", 0),
    ]
    judged = [
        {"question_id": "a0", "method": ONE, "category": 5, "location": 4, "logic": 3},
        {"question_id": "b0", "method": ONE, "category": 1, "location": 2, "logic": 3},
        {"question_id": "a1", "method": ONE, "raw": "?", "error": "form"},
    ]
    return EvaluateQaConfig(
        questions=write(tmp_path / "q.parquet", QUESTIONS, asked),
        manifest=manifest,
        root=tmp_path,
        answers=write(tmp_path / "a.parquet", ANSWERS, answers),
        out=tmp_path / "e",
        encoder="none",
        resamples=200,
        judgements=write(tmp_path / "j.parquet", JUDGEMENTS, judged),
    )


def rows_of(config):
    rows = read_table(config.out, METRICS).to_pylist()
    return {(r["method"], r["category"], r["metric"]): r for r in rows}


def test_metrics_by_hand(config):
    run(config, QUIET)
    rows = rows_of(config)

    def value(metric, category="all", method=ONE):
        return rows[method, category, metric]["value"]

    assert value("accuracy") == pytest.approx(10 / 11) and rows[ONE, "all", "accuracy"]["n"] == 11
    assert rows[ONE, "all", "accuracy"]["n_positive"] == 6, "questions about anomalous images"
    assert value("accuracy/standard") == 1.0 and value("accuracy/identification") == 1.0
    assert value("accuracy/reasoning") == 0.5 and value("accuracy_level_mean") == pytest.approx((1 + 1 + 0.5) / 3)
    assert value("accuracy", "cable") == 0.9 and value("accuracy", "screw") == 1.0
    assert value("accuracy", "mean") == pytest.approx(0.95), "over categories"
    # The cable a: right; b: not; the screw's group lacks an answer.
    assert value("acc_g") == 0.5 and rows[ONE, "all", "acc_g"]["n"] == 2
    assert rows[ONE, "screw", "acc_g"]["reason"] == "no group was answered as a whole"
    assert [value(f"mle_{axis}") for axis in ("category", "location", "logic")] == [3.0, 3.0, 3.0]
    assert value("mle") == 3.0 and rows[ONE, "all", "mle"]["n"] == 2
    assert rows[ONE, "screw", "mle"]["reason"] == "no judgements"
    assert value("accuracy", method=ZERO) == 0.5 and rows[ZERO, "all", "accuracy"]["n"] == 2
    assert rows[ZERO, "all", "acc_g"]["reason"] == "no group was answered as a whole"
    assert rows[ONE, "all", "sbert"]["reason"] == "left out (--encoder none)"
    assert {r["level"] for r in rows.values()} == {"qa"} and (ONE, "mean", "acc_g") not in rows
    low, high = (rows[ONE, "all", "accuracy"][k] for k in ("ci_low", "ci_high"))
    assert 0.8 <= low < 10 / 11 < high <= 1.0
    assert rows[ONE, "screw", "accuracy"]["ci_low"] is None, "one image says nothing of the spread"


@pytest.mark.slow
def test_similarity_is_of_words_and_answers(config):
    run(replace(config, encoder="minilm"), QUIET)
    row = rows_of(config)[ONE, "all", "sbert"]
    # a0-a4: the answer itself behind a letter, and the open question: cosine 1; b4: `Hm.`; letters alone: no words
    assert row["n"] == 7
    from stages.text_encoder.model import encode, load_encoder

    z = encode(*load_encoder("minilm"), [RANKED[0], "Hm."])
    assert row["value"] == pytest.approx((6 + float(z[0] @ z[1])) / 7, abs=1e-5) and float(z[0] @ z[1]) < 0.4


def test_an_encoder_that_cannot_be_loaded(config, monkeypatch):
    with pytest.raises(InputError, match="encoder 'nowhere' cannot be loaded"):
        run(replace(config, encoder="nowhere"), QUIET)
    import stages.text_encoder.model as model

    monkeypatch.setattr(model, "encoder_directory", lambda name: (_ for _ in ()).throw(InputError("needs the package")))
    run(config := replace(config, encoder="minilm"), QUIET)
    assert rows_of(config)[ONE, "all", "sbert"]["reason"] == "needs the package"
    assert rows_of(config)[ONE, "all", "accuracy"]["value"] == pytest.approx(10 / 11)


def test_without_manifest_and_judgements_ids_name_the_places(config):
    run(replace(config, manifest=None, judgements=None), QUIET)
    rows = read_table(config.out, METRICS).to_pylist()
    assert {(r["dataset"], r["category"]) for r in rows} == {("mpdd", c) for c in ("cable", "screw", "all", "mean")}
    assert not any(r["metric"].startswith("mle") for r in rows) and {r["n_positive"] for r in rows} == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [answer("x", 0)]}, "answers none of these questions"),
        ({"answers": [answer("a0", 4)]}, r"chose choice 4 of question a0, which has 4 \(column `choice`"),
        (
            {"judgements": [{"question_id": "a0", "method": "x", "category": 1, "location": 1, "logic": 1}]},
            "--judgements",
        ),
        (
            {"manifest": None, "questions": [question("a0", "mpdd/cable/a")], "answers": [answer("a1", 0)]},
            "answers none",
        ),
    ],
)
def test_tables_that_do_not_belong_together(config, tmp_path, change, message):
    tables = {"answers": ANSWERS, "judgements": JUDGEMENTS, "questions": QUESTIONS}
    change = {n: write(tmp_path / f"other-{n}.parquet", tables[n], v) if v else v for n, v in change.items()}
    with pytest.raises(InputError, match=message):
        run(replace(config, **change), QUIET)


def test_tables_and_page(config, tmp_path):
    run(replace(config, tables=tmp_path / "t", report=tmp_path / "r.html"), QUIET)
    table1 = (tmp_path / "t" / "sage-table1.csv").read_text().splitlines()
    assert table1[1] == 'mpdd,"vlm-qa/m, ours",50.0 / 100.0,- / 100.0,- / 50.0,- / -,50.0 / 90.9'
    assert "mpdd,SAGE (published),81.6 / 83.3,61.6 / 64.3,67.6 / 69.2,0.78 / 0.81,73.8 / 74.1" in table1
    assert len(table1) == 1 + 1 + 8, "MPDD's published rows alone"
    table2 = (tmp_path / "t" / "sage-table2.csv").read_text()
    assert 'mpdd,"vlm-qa/m, ours",- / 3.00,- / 3.00,- / 3.00,- / 3.00' in table2
    assert "manta,SAGE (published),4.05 / 4.09,3.75 / 3.68,4.35 / 4.47,4.05 / 4.08" in table2
    table3 = (tmp_path / "t" / "sage-table3.csv").read_text()
    assert f'mpdd,"{ONE}, ours",90.9,-,50.0,3.00' in table3 and "Full Model (published),69.64,0.70,17.32,4.05" in table3
    assert "ours: of 2 to 5." in (tmp_path / "t" / "sage-table3.md").read_text()
    read = (tmp_path / "t" / "replies.csv").read_text().splitlines()
    # 13 questions: 10 strict, one open, one unparsable, one failed
    assert read[2] == f"mpdd,{ONE},13,10,0,0,0,0,1,0,1,1,0" and read[1] == f"mpdd,{ZERO},13,2,0,0,0,0,0,0,0,0,11"
    page = (tmp_path / "r.html").read_text()
    shown = page_data(tmp_path / "r.html")
    rows = shown.rows()
    assert len(shown.pictures) >= 4 and "Hm." in {r["text"] for r in rows}
    assert "category 5, location 4, logic 3" in {r["marks"] for r in rows} and "Hm." not in page.partition("<script")[0]
    assert any(r["right"] and r["choices"][r["choice"]] == r["answer"] for r in rows)
    assert any("counts as wrong" in r["how"] for r in rows) and any("no such image" in t for t in shown.data["texts"])


def test_other_levels_have_a_table_of_their_own(config, tmp_path):
    asked = [
        question("x", "mmad/bottle/1", level="Defect Classification", ranked=False),
        question("y", "mmad/bottle/1", level="Anomaly Detection", ranked=False),
    ]
    config = replace(
        config,
        manifest=None,
        judgements=None,
        tables=tmp_path / "t",
        questions=write(tmp_path / "q2.parquet", QUESTIONS, asked),
        answers=write(tmp_path / "a2.parquet", ANSWERS, [answer("x", 0), answer("y", 1)]),
    )
    run(config, QUIET)
    lines = (tmp_path / "t" / "qa-mmad.csv").read_text().splitlines()
    assert lines == [
        "data set,method,Defect Classification,Anomaly Detection,mean of levels,all questions",
        'mmad,"vlm-qa/m, ours",- / 100.0,- / 0.0,- / 50.0,- / 50.0',
    ]
    assert not (tmp_path / "t" / "sage-table1.csv").exists()


def test_the_tables_say_who_judged(config, tmp_path):
    judge.run(
        judge.JudgeConfig(
            manifest=config.manifest,
            questions=config.questions,
            answers=config.answers,
            root=tmp_path,
            out=tmp_path / "judged",
        ),
        QUIET,
    )
    run(replace(config, judgements=tmp_path / "judged", tables=tmp_path / "t"), QUIET)
    note = (tmp_path / "t" / "sage-table2.md").read_text()
    assert "Our marks: by a comparison of words with the expert's answer, no model; published ones: by GPT-4o" in note
    # Zero-shot: a0 chose the expert's answer: 5, 5, 5; a1 the worst: 1, 5 (neither names a place), 1.
    assert "| vlm-qa/m, ours | 3.00 / " in re.sub(" +", " ", note)


def test_names_and_cells():
    assert split_name("vlm-qa/qwen2-vl/1-shot") == ("vlm-qa/qwen2-vl", "1")
    assert split_name("vlm-qa/m/0-shot+likelihood") == ("vlm-qa/m+likelihood", "0")
    assert split_name("mine") == ("mine", "")
    assert cell([], "d", None, "accuracy") == "-"


def test_the_published_tables_agree_with_each_other():
    """As their own text has it: Eq. 3 ties Table 3's Score to Table 2, Table 3's ends are rows of Table 1, and the
    averages are over questions."""
    one, two, three = (published(f"sage_table{n}") for n in (1, 2, 3))
    at = {(p["dataset"], p["method"], p["shots"]): p for p in one}
    assert (len(one), len(two), len(three)) == (32, 12, 6)
    axes = ("category", "location", "logic")
    score = {p["method"]: sum(float(p[a]) for a in axes) / 3 for p in two if p["shots"] == "0"}
    variants = {p["variant"]: p for p in three}
    for variant, method in (("Baseline", "InternVL2"), ("Full Model", "SAGE")):
        assert float(variants[variant]["score"]) == pytest.approx(score[method], abs=0.005)
        row = at["manta", method, "0"]
        assert float(variants[variant]["accuracy"]) == pytest.approx(float(row["average"]), abs=0.05)
        assert variants[variant]["sbert"] == row["sbert"]
    off = {}
    for (dataset, method, shots), p in at.items():
        levels = [float(p[n]) for n in ("standard", "identification", "reasoning")]
        weights = {"manta": [0.25, 0.5, 0.25], "mpdd": [0.4, 0.4, 0.2]}[dataset]
        if abs(gap := float(p["average"]) - float(np.dot(levels, weights))) > 0.13:
            off[dataset, method, shots] = round(gap, 1)
    assert off == {
        ("mpdd", "Qwen2-VL", "0"): -0.2,
        ("mpdd", "InternVL2 (sft)", "1"): 0.2,
        ("mpdd", "SAGE", "0"): 3.0,
        ("mpdd", "SAGE", "1"): 1.2,
    }


def test_the_command_and_its_errors(config, tmp_path):
    import typer

    from adcli import evaluate

    def adcli(*arguments):
        app = typer.Typer()
        app.callback()(lambda: None)
        arguments = ["evaluate", *map(str, arguments)]
        evaluate.add_to(app, arguments)
        return CliRunner().invoke(app, arguments)

    common = ("--answers", config.answers, "--out", config.out, "--encoder", "none")
    done = adcli("--questions", config.questions, *common)
    assert done.exit_code == 0 and "Answers to questions (SAGE, Table 1)" in done.output and "90.9" in done.output
    assert "Average: over questions" in done.output and "names no choice" in done.output
    missing = adcli("--questions", tmp_path / "nowhere", *common)
    assert missing.exit_code == 2
    wrong = adcli("--questions", config.answers, *common)
    assert wrong.exit_code == 2
    assert "Missing argument" in adcli("--out", config.out).output, "without --questions it is about scores"


def test_preference_margins_by_hand(config, tmp_path):
    """Log-likelihoods -1, -2, -3, -4 a token: 2 above the others' mean and 3 above the last; whole texts of 5, 2, 7 and
    5 tokens -5, -4, -21, -20: 15 above the last. Surprisals of marks 5, 3, 1, 1: 0.16, 2.16, 4.16, 4.16, so that the
    pairs are the third and fourth, -1, and the first and last, 15. One likelihood of 0: left out."""
    down = np.exp([-1.0, -2, -3, -4]).tolist()
    rows = [
        answer("a0", 0, likelihoods=down),
        answer("a1", 0, likelihoods=down, choice_tokens=[5, 2, 7, 5]),
        answer("b0", 3, likelihoods=down[::-1]),
        answer("b1", 0, likelihoods=[1.0, 0.5, 0.0, 0.5]),
    ]
    marks = [
        {"question_id": i, "method": m, "category": n, "location": n, "logic": n}
        for i, m, n in (
            ("a0", ONE, 3),
            *(("a1", f"choice/{k}", n) for k, n in enumerate((5, 3, 1, 1))),
            ("b0", "choice/0", 5),
        )
    ]
    config = replace(
        config,
        answers=write(tmp_path / "weighed.parquet", ANSWERS, rows),
        tables=tmp_path / "tables",
        judgements=write(tmp_path / "marks.parquet", JUDGEMENTS, marks),
    )
    run(config, QUIET)
    pairs, last, others = (rows_of(config)[ONE, "all", f"margin_{m}"] for m in ("pairs", "first_last", "first_others"))
    assert (pairs["value"], pairs["n"]) == (pytest.approx(7), 1), "b0's choices were not all judged"
    assert (last["value"], last["n"]) == (pytest.approx((3 + 15 - 3) / 3), 3)
    assert last["ci_low"] == pytest.approx(-3) and last["ci_high"] == pytest.approx(9), "image b alone, a alone"
    assert (others["value"], others["n"]) == (pytest.approx(2 / 3), 3)
    assert others["ci_low"] == pytest.approx(-2) and others["ci_high"] == pytest.approx(2)
    written = (tmp_path / "tables" / "margins.csv").read_text()
    assert '7.000,-,"5.000 [-3.000, 9.000]","0.667 [-2.000, 2.000]",' in written
    pair_accuracy, tau = (rows_of(config)[ONE, "all", m] for m in ("pair_accuracy", "kendall_tau"))
    assert (pair_accuracy["value"], pair_accuracy["n"]) == (pytest.approx(2 / 3), 3), "a0, a1 in order, b0 reversed"
    assert (tau["value"], tau["n"]) == (pytest.approx(1 / 3), 3)
    # shares 0.851, 0.115, 0.016, 0.016: terms 0.137, 0.249, 0.065, 0.065; the second and the last differ most
    written = (tmp_path / "tables" / "entropy-differences.csv").read_text()
    assert '"surprisal, -log p","0.00 [0.00, 0.00]","4.00 [4.00, 4.00]",1,1' in written
    assert '"term, -p log p","0.00 [0.00, 0.00]","0.07 [0.07, 0.07]",0,1' in written


def test_what_edpo_adds_is_paired_with_its_own_sfe_model(config):
    """Two ranked choices: SFE's margins 1 and 2, E-DPO's 1.5 and 4, of two images: grown by 0.5 and 2."""
    questions = [Question(i, i, None, None, "standard", "?", ("a", "b"), "a", True) for i in ("q", "r")]

    def answered(method, margins):
        return [
            AnswerRecord(
                q,
                QuestionSource("mpdd", "cable", None),
                method,
                {"likelihoods": [1.0, float(np.exp(-m))]},
                scores=(5.0, 1.0),
            )
            for q, m in zip(questions, margins, strict=True)
        ]

    joined = [*answered("sfe", (1, 2)), *answered("edpo", (1.5, 4)), *answered("other", (9, 9))]
    model = {"stage": "sfe", "shots": 1}
    models = {"sfe": model, "edpo": model | {"stage": "edpo"}, "other": {"stage": "sfe", "shots": 0}}
    (found,) = grown(joined, models, 200, 0)
    assert (found["method"], found["metric"], found["n"]) == ("edpo", "margin_pairs_grown", 2)
    assert (found["value"], found["ci_low"], found["ci_high"]) == pytest.approx((1.25, 0.5, 2))
    assert not list(grown(joined, models | {"other": model}, 0, 0)), "two SFE models: which one is meant?"
    assert not list(grown(joined, {}, 0, 0))


def test_figures_by_hand():
    """Figure 5 needs two runs with groups. Figure 7 joins runs that differ in one setting alone; 0 sentences, that is
    all, come last."""

    def metric(method, value, name="accuracy", **more):
        return {
            "dataset": "manta",
            "category": "all",
            "condition": None,
            "method": method,
            "metric": name,
            "value": value,
            "ci_low": None,
            "ci_high": None,
        } | more

    base = {"patches": 20, "sentences": 0, "stage": "sfe", "shots": 1, "base": "b"}
    models = {
        "a": base,
        "b": base | {"patches": 50},
        "c": base | {"sentences": 3},
        "d": base | {"shots": 0},
        "e": base | {"patches": 50, "base": "another"},
    }
    rows = [metric(m, v) for m, v in zip("abcdef", (0.5, 0.6, 0.7, 0.8, 0.9, 1.0), strict=True)]
    rows += [metric("b", 3.5, "mle"), metric("a", 3.0, "mle"), metric("a", 0.1, category="bolt"), metric("c", None)]
    assert curves_by_setting(rows, models) == [
        Curve("sentences", "accuracy", "manta · sage-sfe/1-shot · 20 patches", ((3, 70.0), (0, 50.0))),
        Curve("patches", "accuracy", "manta · sage-sfe/1-shot · all sentences", ((20, 50.0), (50, 60.0))),
        Curve("patches", "mle", "manta · sage-sfe/1-shot · all sentences", ((20, 3.0), (50, 3.5))),
    ]
    assert by_setting(curves_by_setting(rows, models)).startswith(b"\x89PNG") and by_setting([]) is None
    groups = [metric("m/0-shot", 0.1, "acc_g", ci_low=0.0, ci_high=0.2), metric("m/1-shot", 0.3, "acc_g")]
    assert group_accuracy(groups).startswith(b"\x89PNG") and group_accuracy(groups[:1] + rows) is None
