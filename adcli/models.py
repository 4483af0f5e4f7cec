"""`adcli models`."""

import typer

DOC = """List the vision-language models that have a short name, their size and licence, and which are cached here.

Memory: weights alone, counted from parameters and bits; a GPU needs a fifth more at least, for activations
and the key-value cache. Any other hub id or local directory works as well.

\b
Example: adcli models
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand."""

    def models() -> None:
        print(table())

    app.command("models", help=DOC)(models)


def table() -> str:
    """Aligned columns, one model per line."""
    from stages.vlm.models import MODELS, cached_ids

    there = cached_ids()
    lines = [("--vlm", "hub id", "weights", "GPU memory from", "licence", "cached", "note")]
    lines += [
        (
            m.short,
            m.hub_id,
            f"{m.weights_gib:.0f} GiB ({m.bits:.0f} bit)",
            f"{m.least_gpu_gib:.0f} GiB",
            m.licence,
            {None: "?", True: "yes", False: "no"}[None if there is None else m.hub_id in there],
            m.note,
        )
        for m in MODELS
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
