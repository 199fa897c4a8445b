"""The arrows between the rooms of the house, by reading imports: nothing here is run."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
APPS = sorted(path.name for path in (ROOT / "apps").iterdir() if (path / "__init__.py").exists())


def module_of(path):
    """The name by which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("kerasgal", *parts) if parts[0] == "apps" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for folder in ("kerasgal", "apps") for path in sorted((ROOT / folder).rglob("*.py"))
         if "apps" not in path.relative_to(ROOT).parts[1:]}


def imports(path, top=False):
    """Modules that a file imports; `top`: only where it is imported itself, not inside functions."""
    found = []

    def visit(node, inside):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = True
        if isinstance(node, ast.Import) and not (top and inside):
            found.extend(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and not (top and inside):
            found.append(node.module)
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text()), False)
    return [name for name in found if name]


def ours(names):
    """Of imported names those that are modules of ours."""
    return sorted({name for name in names if name in FILES})


def app_of(name):
    parts = name.split(".")
    return parts[2] if parts[:2] == ["kerasgal", "apps"] and len(parts) > 2 else None


def test_every_package_is_in_the_wheel():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = {name.rsplit(".", 1)[0] if path.name != "__init__.py" else name for name, path in FILES.items()}
    assert set(setup["options"]["packages"].split()) == packages
    patterns = setup["options.package_data"]["kerasgal"].split()
    found = [set((ROOT / "kerasgal").glob(pattern)) for pattern in patterns]
    assert all(found) and "py.typed" in patterns
    shipped = {path for path in (ROOT / "kerasgal" / "shipped").rglob("*") if path.is_file()}
    assert shipped <= set.union(*found)


def test_the_files_are_found():
    assert len(FILES) > 80 and "kerasgal.run" in FILES and "kerasgal.apps.morph.model" in FILES


@pytest.mark.parametrize("name", [name for name in FILES if not app_of(name)])
def test_the_core_never_imports_an_app(name):
    assert not [other for other in ours(imports(FILES[name])) if app_of(other)]


@pytest.mark.parametrize("name", [name for name in FILES if app_of(name)])
def test_no_app_imports_another(name):
    assert not [other for other in ours(imports(FILES[name])) if app_of(other) not in (None, app_of(name))]


@pytest.mark.parametrize("name", [name for name in FILES if app_of(name)
                                  and name.rsplit(".", 1)[-1] in ("model", "losses", "network", "regularizers")])
def test_networks_and_losses_know_keras_and_nothing_of_the_core(name):
    allowed = {"keras", "numpy", "math", "itertools", "dataclasses"}
    # The gradient of a learned schedule's variance is TensorFlow's, inside the function that takes it.
    for other in imports(FILES[name], top=True):
        assert other.split(".")[0] in allowed or app_of(other) == app_of(name), other
        assert not other.startswith("tensorflow")


LIBRARY = [name for name in FILES if not name.startswith("kerasgal.commands") and name not in ("kerasgal.cli",)
           and not name.rsplit(".", 1)[-1].startswith("cli") and name != "kerasgal.__main__"]


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_knows_no_click_and_prints_nothing(name):
    text = FILES[name].read_text()
    assert not [other for other in imports(FILES[name]) if other.split(".")[0] == "click"]
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not [other for other in ours(imports(FILES[name])) if other.startswith("kerasgal.commands")]


def test_the_library_speaks_python_and_not_in_flags():
    """No message of an error names a flag: the command line puts them in."""
    import re

    found = []
    for name in LIBRARY:
        for node in ast.walk(ast.parse(FILES[name].read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                texts = [part.value for part in ast.walk(node.exc) if isinstance(part, ast.Constant)
                         and isinstance(part.value, str)]
                found += [f"{name}:{node.lineno}" for text in texts if re.search(r"(^|\s)--[a-z]", text)]
    assert not found


def test_there_is_no_circle_among_imports():
    edges = {name: ours(imports(path, top=True)) for name, path in FILES.items()}
    state = {}

    def visit(name, way):
        state[name] = "open"
        for other in edges[name]:
            if other == name:
                continue
            assert state.get(other) != "open", " -> ".join([*way, name, other])
            if other not in state:
                visit(other, [*way, name])
        state[name] = "done"

    for name in FILES:
        if name not in state:
            visit(name, [])
