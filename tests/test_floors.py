"""The house's rules: imports point down, files are short and in no circle, every module stands on a floor.

docs/architecture.md shows the floors. Every import counts: inside functions and for type checkers, too.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHODS = ("text_encoder", "lvlm", "visualad", "vmad", "sage", "baselines")
FLOORS = (  # from the ground up
    ("base",),
    ("artifacts",),
    ("training",),
    ("datasets",),
    ("vlm",),
    ("questions",),
    ("captions",),
    METHODS,
    ("results",),
    ("report",),
    ("evaluate",),
)
HEIGHT = {package: n for n, floor in enumerate(FLOORS) for package in floor}
MOST_LINES = 400
CODE = sorted(
    p for folder in ("adcli", "stages", "pipelines", "benchmarks", "tests") for p in (ROOT / folder).rglob("*.py")
)


def module_name(file: Path) -> str:
    """adcli/__init__.py -> adcli, stages/base/seeds.py -> stages.base.seeds."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in CODE}


def imported(text: str, importer: str, package: bool, known: dict[str, Path]) -> set[str]:
    """Modules of the project that a module's source names in import statements, wherever they stand; `from a import b`
    is a.b where that is a module, a otherwise. package: the source is an __init__.py."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importer.split(".")[: len(importer.split(".")) - node.level + package] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            names |= {f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source for alias in node.names}
    return {name for name in names if name in known and name != importer}


@cache
def imports() -> dict[str, set[str]]:
    """module -> the project's modules that it imports."""
    return {m: imported(f.read_text(), m, f.name == "__init__.py", MODULES) for m, f in MODULES.items()}


def floor(module: str) -> str:
    """stages.base.seeds -> base; outside stages/ the top folder."""
    parts = module.split(".")
    return parts[1] if parts[0] == "stages" and len(parts) > 1 else parts[0]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of the graph as [a, b, ..., a]; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph[node]):
            if found := visit(other, [*path, node]):
                return found
        done.add(node)
        return []

    return next(filter(None, (visit(node, []) for node in sorted(graph))), [])


def test_imports_point_down():
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        if module.startswith("stages.")
        for other in sorted(others)
        if other.startswith("stages.")
        and floor(module) != floor(other)
        and HEIGHT[floor(other)] >= HEIGHT[floor(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_files():
    found = circle(imports())
    assert not found, " -> ".join(found)


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("stages", ("stages",)),
        ("adcli", ("adcli", "stages")),
        ("pipelines", ("pipelines", "stages")),
        ("benchmarks", ("benchmarks", "pipelines", "stages")),
    ],
)
def test_what_a_folder_may_import(folder, allowed):
    """Nothing imports the command line but its tests; what demos and benchmarks need is not in the tests."""
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        if module.split(".")[0] == folder
        for other in sorted(others)
        if other.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_stands_on_a_floor():
    loose = [str(f.relative_to(ROOT)) for f in (ROOT / "stages").glob("*.py") if f.name != "__init__.py"]
    packages = {p.parent.name for p in (ROOT / "stages").glob("*/__init__.py")}
    assert not loose and packages <= set(HEIGHT), (loose, packages - set(HEIGHT))


@pytest.mark.parametrize("method", METHODS)
def test_the_config_of_a_method_loads_without_torch(method):
    """By reading: neither config.py nor what it imports at its top level names torch or transformers."""
    start = f"stages.{method}.config"
    if not (ROOT / "stages" / method).is_dir():
        pytest.skip(f"no folder stages/{method}")
    assert start in MODULES, f"stages/{method}/config.py is missing"
    seen, todo = set(), [start]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        tree = ast.parse(MODULES[module].read_text())
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            heavy = [n for n in names if n.split(".")[0] in ("torch", "transformers")]
            assert not heavy, f"{module} imports {heavy[0]}, and {start} needs it"
        todo += imported(ast.unparse(tree), module, False, MODULES)


def test_files_are_short():
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in CODE}
    assert not {name: n for name, n in lengths.items() if n > MOST_LINES}


def test_what_the_rules_are_made_of():
    """Imports are found wherever they stand, and circles whatever their length."""
    known = dict.fromkeys(("a", "a.b", "a.c", "a.d", "a.d.e"), Path())
    text = (
        "import os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import b\n"
        "def f():\n    from .c import g\n    import a.d.e\n"
    )
    assert imported(text, "a.x", False, known) == {"a.b", "a.c", "a.d.e"}
    assert imported("from . import c\nfrom .. import b", "a.d.x", False, known | {"a.d.c": Path()}) == {"a.d.c", "a.b"}
    assert imported("from .b import f", "a", True, known) == {"a.b"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
