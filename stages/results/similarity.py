"""How alike replies and right answers are in words: cosine of their sentence embeddings. Needs torch."""

from dataclasses import replace

from stages.base.errors import InputError
from stages.questions.answering import in_words
from stages.results.answers import AnswerRecord
from stages.text_encoder.config import PACKAGED


def with_similarity(joined: list[AnswerRecord], encoder: str) -> tuple[list[AnswerRecord], str | None]:
    """(the same with cosines of sentence embeddings, why there are none). A reply that is a letter alone has no
    words to compare, and none is chosen by likelihood."""
    if encoder == "none":
        return joined, "left out (--encoder none)"
    pairs = {
        i: (words, a.question.answer)
        for i, a in enumerate(joined)
        if a.row and a.question.answer and (words := in_words(a.row["response"], a.question))
    }
    if not pairs:
        return joined, "no replies in words"
    try:
        from stages.text_encoder.model import encode, load_encoder  # torch, which may be missing

        model, tokenizer = load_encoder(encoder)
    except InputError as e:
        if encoder != PACKAGED:
            raise
        return joined, str(e)
    texts = sorted({t for pair in pairs.values() for t in pair})
    embedded = dict(zip(texts, encode(model, tokenizer, texts), strict=True))
    cosines = {i: float(embedded[reply] @ embedded[answer]) for i, (reply, answer) in pairs.items()}
    return [replace(a, similarity=cosines.get(i)) for i, a in enumerate(joined)], None
