"""The laws of the layout, held by parsing imports."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = {
    p.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): p
    for d in ("sfdkit", "datamodules")
    for p in (ROOT / d).rglob("*.py")
}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}

ROOMS = {
    "webdataset": ("sfdkit.data.stream", "sfdkit.data.pack.writer"),
    "fsspec": ("sfdkit.storage",),
    "urllib3": ("sfdkit.storage",),
    "filelock": ("sfdkit.storage.cache", "sfdkit.data.pack.work"),
    "kornia": ("sfdkit.data.augment", "sfdkit.face_networks.puppet_examples"),
    "timm": ("sfdkit.model.encoders",),
    "huggingface_hub": ("sfdkit.weights.hub",),
    "safetensors": ("sfdkit.tensor_file", "sfdkit.face_networks.puppet_measurer"),
    "scipy": ("sfdkit.study.compare",),
    "jinja2": ("sfdkit.evaluate.report", "sfdkit.export.web", "sfdkit.study.report"),
    "matplotlib": ("sfdkit.evaluate.report", "sfdkit.study.plot"),
    "ray": ("sfdkit.data.pack.cluster",),
    "tensorboard": ("sfdkit.study.curves",),
    "onnxruntime": ("sfdkit.face_networks.onnx_file", "sfdkit.export"),
    "onnx": ("sfdkit.face_networks.onnx_file", "sfdkit.export.half", "sfdkit.export.int8"),
    "onnx2torch": ("sfdkit.face_networks.onnx_file",),
    "gradio": ("sfdkit.page",),
    "starlette": ("sfdkit.page",),
    "lightning": ("sfdkit.train", "sfdkit.data.module"),
}
NEVER = [
    ("sfdkit", "datamodules"),
    ("sfdkit.train.task", "sfdkit.data"),
    ("sfdkit.train.reenactment", "sfdkit.data"),
    ("sfdkit.train.callbacks", "sfdkit.data"),
    ("sfdkit.storage", "sfdkit.data"),
    ("sfdkit.media", "sfdkit.data"),
    ("sfdkit.data", "sfdkit.model"),
    ("sfdkit.data", "sfdkit.train.task"),
    ("sfdkit.model", "sfdkit.data"),
    ("sfdkit.model", "sfdkit.train.task"),
    ("sfdkit.puppets", "sfdkit.model"),
    ("sfdkit.losses", "sfdkit.data"),
    ("sfdkit.puppets", "sfdkit.face_networks"),
    ("sfdkit.model", "sfdkit.face_networks"),
    ("sfdkit.face_networks", "sfdkit.data"),
    ("sfdkit.face_networks", "sfdkit.train.task"),
    ("sfdkit.face_networks", "sfdkit.apply"),
    ("sfdkit.media", "sfdkit.apply"),
    ("sfdkit.apply", "sfdkit.evaluate"),
    ("sfdkit.apply.animate", "sfdkit.apply.edit"),
    ("sfdkit.apply.animate", "sfdkit.apply.extract"),
    ("sfdkit.apply.edit", "sfdkit.apply.animate"),
    ("sfdkit.apply.extract", "sfdkit.apply.animate"),
    ("sfdkit.evaluate", "sfdkit.apply.animate"),
    ("sfdkit.evaluate", "sfdkit.apply.edit"),
    ("sfdkit.metrics", "sfdkit.evaluate"),
    ("sfdkit.export", "sfdkit.evaluate"),
    ("sfdkit.export.runtime", "sfdkit.model"),
]


@cache
def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Every module that a file imports, ``from a import b`` as ``a.b`` where that is a module of the project."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inside = {n for n in names if n in MODULES}
            found |= inside or {node.module}
    return found


def imports_by_string(source: str) -> set[str]:
    """Every module of the project that a file imports by a string: a literal, or a name that a literal was given to."""
    nodes = list(ast.walk(ast.parse(source)))
    given: dict[str, ast.expr | None] = {}
    for node in nodes:
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign):
                given[target.id] = node.value

    def beginning(node: ast.expr | None) -> str:
        if isinstance(node, ast.Name):
            return beginning(given.get(node.id))
        if isinstance(node, ast.JoinedStr):
            return beginning(node.values[0]) if node.values else ""
        if isinstance(node, ast.FormattedValue):
            return beginning(node.value)
        return str(node.value) if isinstance(node, ast.Constant) else ""

    calls = [
        n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func).endswith(("import_module", "__import__"))
    ]
    found = {beginning(arg) for call in calls for arg in (*call.args[:1], *(k.value for k in call.keywords))}
    return {name for name in found if name.partition(".")[0] in ("sfdkit", "datamodules")}


def belongs(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize(("library", "rooms"), ROOMS.items(), ids=ROOMS)
def test_each_library_has_one_room(library: str, rooms: tuple[str, ...]) -> None:
    users = {m for m, p in MODULES.items() if any(belongs(i, library) for i in imports(p))}
    outside = {m for m in users if not any(belongs(m, room) for room in rooms)}
    assert users and not outside


@pytest.mark.parametrize(("one", "other"), NEVER, ids=[f"{a}-{b}" for a, b in NEVER])
def test_dependencies_go_one_way(one: str, other: str) -> None:
    guilty = [(m, i) for m, p in MODULES.items() if belongs(m, one) for i in imports(p) if belongs(i, other)]
    assert not guilty


def test_no_file_imports_the_project_by_a_string() -> None:
    guilty = {m: names for m, p in MODULES.items() if (names := imports_by_string(p.read_text()))}
    assert not guilty


@pytest.mark.parametrize(
    "source",
    [
        "importlib.import_module('datamodules')",
        "import_module('sfdkit.data', package=None)",
        "import_module(name='sfdkit')",
        "__import__('datamodules.hdtf')",
        "PACKAGE = 'datamodules'\nimport_module(PACKAGE)",
        "PACKAGE: str = 'datamodules'\nimport_module(f'{PACKAGE}.hdtf')",
        "import_module(f'datamodules.{name}')",
    ],
)
def test_an_import_by_a_string_is_found(source: str) -> None:
    assert imports_by_string(source)
    for word in ("datamodules", "sfdkit"):
        source = source.replace(word, "yaml")
    assert not imports_by_string(source)


def test_model_files_are_torch_and_types_of_arguments_only() -> None:
    allowed = {"torch", "timm", "jsonargparse", "sfdkit", *sys.stdlib_module_names}
    for module, path in MODULES.items():
        if belongs(module, "sfdkit.model"):
            assert {i.split(".")[0] for i in imports(path)} <= allowed, module


def test_no_cycle_between_files() -> None:
    graph = {m: {i for i in imports(p) if i in MODULES and i != m} for m, p in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_experiments_hold_no_code() -> None:
    allowed = {".yaml", ".md", ".csv", ".png", ".svg", ".html"}  # a study's tables and plots lie beside it
    assert {p.suffix for p in (ROOT / "experiments").rglob("*") if p.is_file()} <= allowed
