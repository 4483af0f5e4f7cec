"""What a stage tells its caller at the end."""

from dataclasses import dataclass

from stages.artifacts.parts import Written


@dataclass(frozen=True)
class Summary:
    """What a stage tells its caller at the end."""

    stage: str
    out: str
    rows: int  # in the artifact now
    expected: int  # when all shards are done
    written: int  # by this run
    errors: int  # rows with `error` in the artifact now
    first_errors: tuple[str, ...]
    tokens: int  # written by engines in this run
    seconds: float
    peak_rss_mb: int  # largest of this process and its children
    up_to_date: bool
    complete: bool
    final: int = 0  # of `errors`: those that only --retry all tries again


def said_of(rows: list[Written]) -> dict:
    """The columns of a Summary that its rows decide."""
    errors = [row for row in rows if row.error is not None]
    return {
        "rows": len(rows),
        "errors": len(errors),
        "final": sum(row.final for row in errors),
        "first_errors": tuple(f"{' / '.join(map(str, row.key))}: {row.error}" for row in errors[:3]),
    }
