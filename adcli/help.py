"""How a command explains itself: usage, one sentence, one example and what everybody gives come first, then the other
options in groups."""

from typing import Any, ClassVar

from typer.core import TyperCommand

NEEDED, SETTINGS, RUN = "What you need", "Settings", "This run"
EXAMPLE = "Example: "


class StageCommand(TyperCommand):
    """The group of an option is its `rich_help_panel`; `renamed` is set on a subclass: old flag -> new flag."""

    renamed: ClassVar[dict[str, str]] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """An option's former name says what it is called now."""
        for word in () if ctx.resilient_parsing else args:  # not while a line is being completed
            if new := self.renamed.get(old := word.partition("=")[0]):
                ctx.fail(f"No such option: {old}; it is called {new} now")
        return super().parse_args(ctx, args)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The first sentence and the first example."""
        first, example, _ = parts(self.help or "")
        write(formatter, first, example)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """What is needed, the rest of the text, and all other options group by group."""
        groups: dict[str, list[tuple[str, str]]] = {NEEDED: []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or RUN, []).append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
            if heading == NEEDED:
                write(formatter, *parts(self.help or "")[2])


def parts(text: str) -> tuple[str, str, list[str]]:
    """(first paragraph, first example, all other paragraphs) of a help text."""
    first, *others = (p.strip("\b\n ") for p in text.strip().split("\n\n"))
    example = next((p for p in others if p.startswith(EXAMPLE)), "")
    return first, example, [p for p in others if p is not example]


def write(formatter: Any, *paragraphs: str) -> None:
    """Paragraphs, indented and wrapped; examples as they are, so that they can be copied."""
    for paragraph in filter(None, paragraphs):
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\b\n" + paragraph if paragraph.startswith(EXAMPLE) else paragraph)
