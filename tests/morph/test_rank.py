"""Ranks of images among observed ones, against SciPy's percentiles and pairs that are counted."""

import json

import numpy as np
import pytest
from astropy.table import Table
from scipy import stats

import kerasgal as kg
from kerasgal.apps.morph.rank import below, lines, rank, ranks, whole
from kerasgal.apps.morph.score import COLUMNS, FLAGS

pytestmark = pytest.mark.usefixtures("eager", "restored_once")


def rows_of(llr):
    """Rows as `score` has them; None for an image that could not be scored."""
    made = []
    for number, value in enumerate(llr):
        row = dict.fromkeys(COLUMNS, "") | {"id": f"image {number}", "flag": 0, "ra": 10.0 + number}
        made.append(row | ({"llr": value} if value is not None else {"error": "damaged", "flag": 32}))
    return made


def test_the_most_real_stand_first_with_their_percentiles():
    observed = np.random.default_rng(0).normal(3, 2, 50)
    llr = [1.0, 5.0, None, float(observed[7]), -9.0]
    columns = ranks(rows_of(llr), observed)
    assert list(columns["id"]) == [f"image {i}" for i in np.argsort([-1.0, -5.0, 99, -observed[7], 9.0])]
    assert list(columns["rank"]) == [1, 2, 3, 4, 0] and columns["error"][-1] == "damaged"
    expected = [stats.percentileofscore(observed, value, "mean") for value in columns["llr"][:4]]
    np.testing.assert_allclose(columns["percentile"][:4], expected)
    assert np.isnan(columns["percentile"][4]) and columns["ra"][-1] == 12
    # Of n observed a share p is below with the error of a binomial, 100 sqrt(p (1 - p) / n).
    p = columns["percentile"][:4] / 100
    np.testing.assert_allclose(columns["percentile_error"][:4], 100 * np.sqrt(p * (1 - p) / 50), rtol=0.15, atol=0.3)


def test_equal_ratios_are_half_below():
    assert below(np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.5])).tolist() == [25.0, 75.0]


def test_sets_differ_only_where_they_do():
    rng = np.random.default_rng(1)
    observed, same, worse = rng.normal(0, 1, 300), rng.normal(0, 1, 300), rng.normal(-1, 1, 300)
    for llr, differs in ((same, False), (worse, True)):
        columns = ranks(rows_of(llr.tolist()), observed)
        found = whole(columns, observed)
        assert found["differs"] is differs and found["median"] == pytest.approx(np.median(llr))
        pairs = (observed[:, None] > llr).mean() + (observed[:, None] == llr).mean() / 2
        assert found["area_under_curve"] == pytest.approx(pairs)
        assert found["area_under_curve_error"] == pytest.approx(0.023, abs=0.008)
        assert ("are not shown to differ" in "".join(lines(found, columns))) is not differs


def test_too_few_images_are_not_ranked(monkeypatch):
    monkeypatch.setattr("kerasgal.apps.morph.rank.scored", lambda run, rows: (rows, ([], [])))
    with pytest.raises(kg.DataError, match="19 observed images can be scored: at least 20 are needed"):
        rank(None, rows_of([1.0]), rows_of([None, *range(19)]))
    with pytest.raises(kg.DataError, match="no image can be scored: damaged"):
        rank(None, rows_of([None, None]), rows_of(range(20)))
    with pytest.raises(kg.DataError, match="no image can be scored: there is none"):
        rank(None, [], rows_of(range(20)))


def test_flags_are_in_words():
    rows = rows_of([1.0, 2.0])
    rows[1]["flag"] = FLAGS["cut"]
    columns = ranks(rows, np.arange(20.0))
    assert any("[cut]" in line for line in lines(whole(columns, np.arange(20.0)), columns))


@pytest.mark.slow
def test_a_set_is_ranked_on_the_command_line(trained, galaxies, invoke, tmp_path):
    run, folder = trained("morph"), tmp_path / "ranking"
    said = invoke("morph", "rank", run, galaxies / "unseen_archetypes.h5", "--against", galaxies / "unseen_real.h5",
                  "--output", folder)
    assert "ranks.ecsv: 20 rows" in said.stdout and "report.html" in said.stdout
    table = Table.read(folder / "ranks.ecsv")
    scores = kg.load(run).predict(galaxies / "unseen_archetypes.h5")
    order = np.argsort(-scores["llr"])
    assert list(table["id"]) == list(scores["id"][order]) and list(table["rank"]) == list(range(1, 21))
    np.testing.assert_allclose(table["llr"], scores["llr"][order], rtol=1e-5)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["observed"] == metrics["images"] == 20
    assert {path.name for path in folder.glob("*.png")} == {"llr.png", "sheet.png"}
    seen = invoke("morph", "rank", run, galaxies / "unseen_real.h5", "--against", galaxies / "real.h5", "--output",
                  tmp_path / "no", check=False)
    assert seen.returncode == 1 and "was used in the training" in seen.stderr and not (tmp_path / "no").exists()
