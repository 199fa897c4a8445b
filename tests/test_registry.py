"""Apps of other packages, which say by an entry point that they are ones: the example app, installed by itself."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

import kerasgal
from kerasgal import registry
from kerasgal.errors import RunError

EXAMPLE = Path(__file__).parents[1] / "docs" / "example" / "meandensity"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package `density_outside` with the example app, and the metadata that an installation of it leaves."""
    package = tmp_path / "density_outside"
    shutil.copytree(EXAMPLE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in package.glob("*.py"):
        text = path.read_text().replace("kerasgal.apps.meandensity", "density_outside")
        path.write_text(text.replace("meandensity", "outside").replace("MeanDensity", "OutsideDensity"))
    metadata = tmp_path / "density_outside-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: density-outside\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[kerasgal.apps]\noutside = density_outside\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return package


def test_an_app_of_another_package_is_a_command_and_a_class(outside, invoke):
    assert registry.packages()["outside"] == "density_outside"
    assert "outside" in invoke("--help").stdout
    assert "--patch" in invoke("outside", "train", "--help").stdout
    said = invoke("outside", "summary", "--preset", "demo").stdout
    # 27 * 4 + 4 weights of the first convolution, 27 * 4 * 8 + 8 of the second, 8 + 1 of the last layer
    assert f"{112 + 872 + 9} trainable parameters" in said
    assert kerasgal.OutsideDensity.app == "outside" and "OutsideDensity" in dir(kerasgal)


def test_without_the_package_there_is_no_such_app(invoke):
    assert "outside" not in registry.packages()
    with pytest.raises(RunError, match="there is no app 'outside'; installed are .*protohalo"):
        registry.run_class("outside")
    assert invoke("outside", "train", check=False).returncode == 2


def test_an_app_of_ours_goes_before_another_of_its_name(outside, tmp_path):
    (tmp_path / "density_outside-1.0.dist-info" / "entry_points.txt").write_text(
        "[kerasgal.apps]\nprotohalo = density_outside\n")
    importlib.invalidate_caches()
    assert registry.packages()["protohalo"] == "kerasgal.apps.protohalo"


def test_an_app_that_cannot_be_imported_takes_nothing_else_with_it(outside, invoke, caplog, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("density_outside")]:
        monkeypatch.delitem(sys.modules, name)
    for path in outside.glob("*.py"):
        path.write_text("import a_module_that_nobody_has\n")
    shutil.rmtree(outside / "__pycache__", ignore_errors=True)
    assert "protohalo" in invoke("--help").stdout and "cannot be imported" in invoke("--help").stdout
    registry._runs_of.cache_clear()
    try:
        assert registry.run_class("protohalo") is kerasgal.Protohalo
    finally:
        registry._runs_of.cache_clear()
    assert any("a_module_that_nobody_has" in message for message in caplog.messages)
    done = invoke("outside", "train", "box.h5", "--epochs", 2, check=False)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "ModuleNotFoundError: No module named 'a_module_that_nobody_has'" in done.stderr
