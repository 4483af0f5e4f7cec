"""Every table of the pipeline, in one place: name, key and columns.

`?` in design notes = nullable here. Column documentation is stored in the Parquet field metadata, so
that `pq.read_schema(part).field("score").metadata` explains the column to whoever opens the file.
"""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Table:
    """name: as in messages; key: columns that identify a row; volatile: columns that say how long a
    row took or what a file was like, not what the row says (left out of fingerprints)."""

    name: str
    key: tuple[str, ...]
    schema: pa.Schema
    volatile: tuple[str, ...] = ()


def _column(name: str, type_: pa.DataType, doc: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"doc": doc})


ERROR = _column("error", pa.string(), "why this row has no result; null when it has one", True)
RETRY = _column(
    "retry",
    pa.bool_(),
    "false: what failed is fixed by the row's seed, and the same command leaves it alone"
    " (--retry all asks again); null otherwise",
    True,
)

READ = _column("prompt_tokens", pa.int32(), "tokens read, images included, where the engine counts them", True)
WRITTEN = _column("completion_tokens", pa.int32(), "tokens written, where the engine counts them", True)
SECONDS = _column(
    "seconds",
    pa.float64(),
    "time for this row; of rows that are asked about together, the time from the last answers to these, divided by"
    " their number",
    True,
)

MANIFEST = Table(
    "manifest",
    ("image_id",),
    pa.schema(
        [
            _column("image_id", pa.string(), "`dataset/relative path`; unique"),
            _column("path", pa.string(), "relative to the root kept in the provenance; --root overrides"),
            _column("dataset", pa.string(), "data set name"),
            _column("category", pa.string(), "object or scenario"),
            _column("condition", pa.string(), "capture condition", True),
            _column("split", pa.string(), "train, val or test"),
            _column("label", pa.int8(), "0 normal, 1 anomalous, null unknown", True),
            _column("defect", pa.string(), "kind of defect; null for normal or unknown", True),
            _column("mask_paths", pa.list_(pa.string()), "like path; empty when normal or without masks"),
            _column("width", pa.int32(), "pixels; null when the image cannot be read", True),
            _column("height", pa.int32(), "pixels; null when the image cannot be read", True),
            _column("file_size", pa.int64(), "of the image file, bytes; null when it was not read", True),
            _column("file_mtime_ns", pa.int64(), "modification time of the image file, nanoseconds since 1970", True),
            _column(
                "file_digest",
                pa.string(),
                "BLAKE2b of the image file's bytes, 32 hexadecimal digits; stages read the file"
                " again only where its size or modification time is another",
                True,
            ),
            _column("mask_file_sizes", pa.list_(pa.int64()), "like file_size, one for each of mask_paths", True),
            _column(
                "mask_file_mtimes_ns", pa.list_(pa.int64()), "like file_mtime_ns, one for each of mask_paths", True
            ),
            _column("mask_file_digests", pa.list_(pa.string()), "like file_digest, one for each of mask_paths", True),
            ERROR,
        ]
    ),
    volatile=(
        "file_size",
        "file_mtime_ns",
        "file_digest",
        "mask_file_sizes",
        "mask_file_mtimes_ns",
        "mask_file_digests",
    ),
)  # digests enter the keys of the stages that read the files, and only those

CAPTIONS = Table(
    "captions",
    ("image_id", "prompt_id", "sample"),
    pa.schema(
        [
            _column("image_id", pa.string(), "the manifest's"),
            _column("prompt_id", pa.string(), "file under prompts/ without its ending, or a path"),
            _column("sample", pa.int32(), "0 .. n-1 when several texts are drawn per image"),
            _column("text", pa.string(), "the description after clean-up; null on error", True),
            _column("finish_reason", pa.string(), "stop or length", True),
            _column("prompt_tokens", pa.int32(), "tokens read, images included", True),
            _column("completion_tokens", pa.int32(), "tokens written", True),
            SECONDS,
            ERROR,
            RETRY,
        ]
    ),
    volatile=("seconds",),
)

EDIT = pa.struct([("attribute", pa.string()), ("before", pa.string()), ("after", pa.string())])

NEGATIVES = Table(
    "negatives",
    ("image_id", "sample"),
    pa.schema(
        [
            _column("image_id", pa.string(), "the manifest's"),
            _column("sample", pa.int32(), "the caption's"),
            _column("text", pa.string(), "the normal description that was rewritten", True),
            _column("negative", pa.string(), "its contradiction; null on error", True),
            _column("edits", pa.list_(EDIT), "every replacement, in order of appearance"),
            _column("attempts", pa.int32(), "rewrites drawn until one passed, or all that failed"),
            ERROR,
            RETRY,
        ]
    ),
)

ENCODERS = Table(
    "encoders",
    ("dataset", "category", "condition"),
    pa.schema(
        [
            _column("dataset", pa.string(), "the task's"),
            _column("category", pa.string(), "the task's"),
            _column("condition", pa.string(), "the task's", True),
            _column("path", pa.string(), "checkpoint directory, relative to the artifact", True),
            _column("weights", pa.string(), "digest of the files in that directory, 32 hexadecimal digits", True),
            _column("n", pa.int32(), "training captions"),
            _column("steps", pa.int32(), "optimiser steps", True),
            _column("first_loss", pa.float64(), "mean loss of the first epoch (Eq. 4), nats", True),
            _column("last_loss", pa.float64(), "mean loss of the last epoch (Eq. 4), nats", True),
            _column("seconds", pa.float64(), "training time", True),
            ERROR,
            RETRY,
        ]
    ),
    volatile=("seconds",),
)

NEIGHBOUR = pa.struct(
    [
        ("image_id", pa.string()),
        ("distance", pa.float64()),
        ("text", pa.string()),
        ("missing", pa.list_(pa.string())),  # its words that the scored caption lacks
        ("extra", pa.list_(pa.string())),  # the scored caption's words that it lacks
    ]
)

SCORES = Table(
    "scores",
    ("image_id", "method"),
    pa.schema(
        [
            _column("image_id", pa.string(), "the manifest's"),
            _column("method", pa.string(), "what scored it"),
            _column("score", pa.float64(), "higher = more anomalous; raw, never rescaled", True),
            _column(
                "prediction", pa.int8(), "the method's own yes/no: 1 anomalous; null where its answer is neither", True
            ),
            _column("response", pa.string(), "the text that was scored or answered", True),
            _column("parsed", pa.string(), "strict, fallback, refused or unparsable", True),
            _column(
                "neighbours", pa.list_(NEIGHBOUR), "nearest normal captions, nearest first; or reference images", True
            ),
            READ,
            WRITTEN,
            SECONDS,
            ERROR,
            RETRY,
        ]
    ),
    volatile=("prompt_tokens", "completion_tokens", "seconds"),
)

MAPS = Table(
    "maps",
    ("image_id", "method"),
    pa.schema(
        [
            _column("image_id", pa.string(), "the manifest's"),
            _column("method", pa.string(), "what made it"),
            _column("height", pa.int32(), "of the map, pixels", True),
            _column("width", pa.int32(), "of the map, pixels", True),
            _column(
                "map",
                pa.large_binary(),
                "anomaly map, higher = more anomalous, raw: float16 (float32 and float64"
                " are read, too), C order, little endian",
                True,
            ),
            ERROR,
            RETRY,
        ]
    ),
)

FEATURES = Table(
    "features",
    ("image_id", "level"),
    pa.schema(
        [
            _column("image_id", pa.string(), "the manifest's"),
            _column("level", pa.int32(), "feature level of the backbone, 0 = the finest"),
            _column("channels", pa.int32(), "of the feature map", True),
            _column("height", pa.int32(), "of the feature map, positions", True),
            _column("width", pa.int32(), "of the feature map, positions", True),
            _column(
                "features",
                pa.large_binary(),
                "what the network gives at that level: float32, (channels, height, width) in C order, little endian",
                True,
            ),
            ERROR,
            RETRY,
        ]
    ),
)

THRESHOLDS = Table(
    "thresholds",
    ("dataset", "category", "condition", "method", "level", "name"),
    pa.schema(
        [
            _column("dataset", pa.string(), "data set name"),
            _column("category", pa.string(), "the task's"),
            _column("condition", pa.string(), "the task's", True),
            _column("method", pa.string(), "whose scores"),
            _column("level", pa.string(), "image (score above it) or pixel (map at or above it)"),
            _column("name", pa.string(), "train-max, train-q90, train-q80, the same with val, or f1-max"),
            _column("threshold", pa.float64(), "in the scores' own unit; f1-max: anomalous at or above, others: above"),
            _column("source", pa.string(), "the images it was taken from"),
            _column("n", pa.int32(), "how many of them"),
        ]
    ),
)

METRICS = Table(
    "metrics",
    ("dataset", "category", "condition", "method", "metric"),
    pa.schema(
        [
            _column("dataset", pa.string(), "data set name"),
            _column(
                "category", pa.string(), "object or scenario; `mean` = mean over them, `all` = the questions of all"
            ),
            _column("condition", pa.string(), "capture condition; null where there is none", True),
            _column("method", pa.string(), "what scored the images"),
            _column("metric", pa.string(), "auroc, ap, f1_max, ...; `auroc/<defect>` = that defect vs normal"),
            _column("level", pa.string(), "image, pixel or qa"),
            _column("value", pa.float64(), "null where it is undefined; `reason` says why", True),
            _column("ci_low", pa.float64(), "lower end of the 95% interval", True),
            _column("ci_high", pa.float64(), "upper end of the 95% interval", True),
            _column("n", pa.int32(), "images that entered; level qa: questions (acc_g: groups)"),
            _column("n_positive", pa.int32(), "anomalous ones among them; level qa: questions about such (acc_g: 0)"),
            _column(
                "reason",
                pa.string(),
                "why there is no value (one class only, no labels, ...), or which images it lacks",
                True,
            ),
        ]
    ),
)

LEVELS = ("standard", "identification", "reasoning")  # SAGE section 4: comparison, defect, diagnosis

QUESTIONS = Table(
    "questions",
    ("question_id",),
    pa.schema(
        [
            _column("question_id", pa.string(), "unique"),
            _column("image_id", pa.string(), "the test image, as the manifest names it"),
            _column("reference_id", pa.string(), "the normal image shown beside it, as the manifest names it", True),
            _column("group", pa.string(), "questions of one group are about the same image (accuracy-for-group)", True),
            _column("level", pa.string(), "standard, identification or reasoning; other sets keep their own names"),
            _column("question", pa.string(), "what is asked, without instructions and without the choices", True),
            _column("choices", pa.list_(pa.string()), "possible answers, in the set's order; best first where ranked"),
            _column(
                "answer", pa.string(), "the right one: one of the choices, or free text where there are none", True
            ),
            _column("ranked", pa.bool_(), "true: a preference set, the choices are answers from best to worst", True),
            ERROR,
            RETRY,
        ]
    ),
)

ANSWERS = Table(
    "answers",
    ("question_id", "method"),
    pa.schema(
        [
            _column("question_id", pa.string(), "the question's"),
            _column("method", pa.string(), "what answered"),
            _column("response", pa.string(), "the text as it was generated; null for choices by likelihood", True),
            _column(
                "parsed", pa.string(), "strict, fallback, refused or unparsable; likelihood: nothing was parsed", True
            ),
            _column("choice", pa.int32(), "index of the choice in the question's list, from 0", True),
            _column("correct", pa.bool_(), "the choice is the question's answer; null where there is no choice", True),
            _column(
                "likelihoods",
                pa.list_(pa.float64()),
                "of each choice, in the question's order, where it was chosen by"
                " likelihood: of its letter, or per token of its words (geometric mean)",
                True,
            ),
            _column(
                "choice_tokens",
                pa.list_(pa.int32()),
                "tokens of each choice's words, the end of the turn included, where"
                " they were weighed: the whole text's likelihood is the likelihood to this power",
                True,
            ),
            READ,
            WRITTEN,
            SECONDS,
            ERROR,
            RETRY,
        ]
    ),
    volatile=("prompt_tokens", "completion_tokens", "seconds"),
)

JUDGEMENTS = Table(
    "judgements",
    ("question_id", "method"),
    pa.schema(
        [
            _column("question_id", pa.string(), "the question's"),
            _column(
                "method",
                pa.string(),
                "whose answer was judged; `choice/0`, `choice/1`, ... = the question's own choices",
            ),
            _column("category", pa.int8(), "Multiscale Logical Evaluation, defect type: 1 to 5", True),
            _column("location", pa.int8(), "defect localisation: 1 to 5", True),
            _column("logic", pa.int8(), "reasoning: 1 to 5", True),
            _column("raw", pa.string(), "the judge's reply", True),
            READ,
            WRITTEN,
            SECONDS,
            ERROR,
            RETRY,
        ]
    ),
    volatile=("prompt_tokens", "completion_tokens", "seconds"),
)

TRUTH = Table(
    "truth",
    ("image_id",),
    pa.schema(
        [
            _column("image_id", pa.string(), "as the manifest of the rendered images will name it"),
            _column("scenario", pa.string(), "VID-AD scenario, or `surfaces`"),
            _column("condition", pa.string(), "capture condition"),
            _column("split", pa.string(), "train or test"),
            _column("label", pa.int8(), "0 normal, 1 anomalous"),
            _column("violates", pa.list_(pa.string()), "aspects of Table 2 that the state breaks, or the defect"),
            _column("state", pa.string(), "the logical state as JSON; for tests and caption accuracy only"),
        ]
    ),
)
