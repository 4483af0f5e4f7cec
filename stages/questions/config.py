"""Options of the stages that make, import, answer and judge questions with a vision-language model."""

from dataclasses import dataclass
from pathlib import Path

from stages.base.config import argument, option
from stages.datasets.config import RULES
from stages.questions.mle import FORMS
from stages.questions.words_judge import NAME as WORDS
from stages.vlm.options import EngineOptions

FORMATS = ("ad-pl", "conversations", "mmad", "manta", "riad")  # of questions that are imported
TEMPLATES = "templates"  # --vlm: answers without a model


@dataclass(frozen=True, kw_only=True)
class ReplyOptions(EngineOptions):
    """What these stages have in common: the images, and how a model's replies are drawn. A stage with another default
    states the field again."""

    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    out: Path = option("where the result goes")
    temperature: float = option("sampling temperature; 0 is greedy", 0.0)
    max_tokens: int = option("longest reply, tokens", 256)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of sampled replies", 0)


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(ReplyOptions):
    manifest: Path = argument("the images, labelled and with masks: manifest artifact or Parquet file")
    out: Path = option("where the questions go")
    vlm: str = option(
        "who writes the answers: templates, or a model: short name (`adcli models`), hub id or directory", TEMPLATES
    )
    captions: Path | None = option("for a model: captions of the same images", None)
    splits: str = option("images to ask about, comma-separated: test, train, val", "test")
    max_images: int = option(
        "at most so many images, drawn by the seed, as many anomalous as normal ones while both last; 0 = all",
        0,
        was="images",
    )
    reference: str = option(
        f"which normal training image is shown beside: {', '.join(RULES)}; random is drawn for"
        " every image, as the paper samples it",
        "random",
    )
    prompt: str = option(
        "for a model: prompt id or text file with the fields {object}, {facts}, {caption} and {question}", "sage/write"
    )
    temperature: float = option("for a model: sampling temperature", 0.9)
    top_p: float = option("for a model: nucleus mass", 0.95)
    max_tokens: int = option("for a model: longest reply, tokens", 512)
    seed: int = option("other seed, other wordings, references and wrong answers", 0)


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    source: Path = argument("the file, or a folder of such files")
    manifest: Path = option("the images that are asked about: manifest artifact or Parquet file")
    format: str = option(f"of the source: {', '.join(FORMATS)}")
    out: Path = option("where the questions go")
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)


@dataclass(frozen=True, kw_only=True)
class VlmQaConfig(ReplyOptions):
    questions: Path = option("the questions about them: artifact or Parquet file")
    out: Path = option("where the answers go")
    vlm: str = option("a short name (`adcli models`), a hub id or a directory; scene answers no questions")
    method: str = option("vlm-qa", "vlm-qa")
    name: str = option("what tables call this run; by default vlm-qa/<model>/<shots>-shot and, by likelihood, that", "")
    shots: int = option("1: the reference image, then the test image; 0: the test image alone", 1)
    choose: str = option(
        "generate (the reply is read), likelihood (the option whose letter is the most probable beginning of the"
        " reply), or prefix (True/False sets as SAGE's released code asks: True only where it begins with true or yes)",
        "generate",
    )
    top_p: float = option("nucleus mass", 1.0)
    seed: int = option("of sampled replies and of the order in which ranked choices are shown", 0)


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(ReplyOptions):
    questions: Path = option("the questions, with the experts' answers")
    out: Path = option("where the judgements go")
    answers: Path | None = option(
        "answers to judge, of one or several methods; without it the questions' own choices"
        " are judged, as `choice/0`, `choice/1`, ...",
        None,
    )
    method: str = option("mle", "mle")
    judge: str = option(
        "words (compares words, no model, and no substitute for one), a short name, a hub id, a"
        " directory, or a model of the server",
        WORDS,
    )
    form: str = option(
        f"{' or '.join(FORMS)}: strict = images, the expert's answer, no examples, one line of marks or no mark at all;"
        " released = as the authors' code: text alone, four examples, a mark of 0 for what the reply lacks",
        FORMS[0],
    )
    tries: int = option("strict: how often a judge is asked until its reply has the stated form", 3)
    temperature: float | None = option(  # type: ignore[assignment]
        "of the first try, by form 0 or 0.2; further ones are drawn at 0.7 or above", None
    )
    max_tokens: int = option("longest reply, tokens", 64)
