import heapq
import os
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops
from skimage.segmentation import watershed as skimage_watershed

from kerasgal import config
from kerasgal.apps.protohalo import basins, data, predict, watershed
from kerasgal.apps.protohalo.config import VOLUMES, TrainConfig
from kerasgal.apps.protohalo.watershed import Line
from kerasgal.simulation import Simulation


def bumps(n=40, count=25, seed=0):
    """A smooth periodic map between 0 and 1 with many peaks."""
    noise = np.random.default_rng(seed).normal(size=(n, n, n))
    smooth = ndimage.gaussian_filter(noise, 2.5, mode="wrap")
    return np.clip(smooth / smooth.max(), 0, None).astype(np.float32)


def balls(n, centres, radii):
    """Cones of height 1: the distance maps of spheres, periodic."""
    axis = np.arange(n)
    distance_map, labels = np.zeros((n, n, n), np.float32), np.zeros((n, n, n), int)
    for label, (centre, size) in enumerate(zip(centres, radii), 1):
        offset = [np.minimum(np.abs(axis - c), n - np.abs(axis - c)) for c in centre]
        x, y, z = np.meshgrid(*offset, indexing="ij")
        cone = 1 - np.sqrt(x**2 + y**2 + z**2) / (size + 0.5)
        labels[cone > distance_map] = label
        distance_map = np.maximum(distance_map, cone)
    return distance_map, labels


def native(distance, smoothing=0.5, floor=0.02):
    markers, _ = watershed.find_markers(distance, smoothing, 0.15, 2)
    return watershed.native(distance, markers, floor)


def same_partition(one, other):
    """Whether two label volumes separate the same cells, whatever the numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))


def test_without_a_periodic_face_it_is_the_librarys_watershed():
    distance, _ = balls(40, [(12, 12, 12), (22, 12, 12), (14, 25, 20)], [7, 6, 5])
    markers, smooth = watershed.find_markers(distance, 0.0, 0.15, 2)
    np.testing.assert_array_equal(watershed.native(smooth, markers, 0.02),
                                  skimage_watershed(-smooth, markers, mask=smooth > 0.02))


def test_touching_spheres_are_separated_with_their_volumes():
    distance, true = balls(48, [(10, 10, 10), (22, 10, 10), (30, 34, 30)], [8, 6, 5])
    labels = native(distance, smoothing=0.0, floor=0.0)
    assert same_partition(labels > 0, true > 0)
    for label in (1, 2, 3):
        found = np.bincount(labels[true == label]).max()
        assert found > 0.97 * (true == label).sum()


def neighbours(cell, shape):
    """The six cells beside a cell of a periodic box."""
    for axis in range(3):
        for step in (-1, 1):
            yield tuple((index + step * (axis == along)) % shape[along] for along, index in enumerate(cell))


def flooded(image, markers, floor):
    """The marker watershed as it is defined: cells are taken from a queue by falling value (Meyer's flooding).

    Returns the labels, and for every cell through which one the flood came to it: itself if the flood came at the
    cell's own height, or the cell over which it fell into a basin that had been dry until then.
    """
    labels, through = np.where(image > floor, markers, 0), {}
    queue = [(-image[cell], cell, cell) for cell in zip(*np.nonzero(labels))]
    heapq.heapify(queue)
    level = np.inf
    while queue:
        negative, cell, before = heapq.heappop(queue)
        level = min(level, -negative)
        through[cell] = cell if -negative == level else through[before]
        for other in neighbours(cell, image.shape):
            if labels[other] == 0 and image[other] > floor:
                labels[other] = labels[cell]
                heapq.heappush(queue, (-image[other], other, cell))
    return labels, through


def peak_uphill(image, cell):
    """The peak to which steps to the highest neighbour lead from a cell."""
    while True:
        highest = max([cell, *neighbours(cell, image.shape)], key=lambda other: image[other])
        if highest == cell:
            return cell
        cell = highest


def distinct(shape, seed, rough):
    """A random map with no two equal values, between 0 and 1: white noise, or smooth."""
    noise = np.random.default_rng(seed).normal(size=shape)
    order = np.argsort((noise if rough else ndimage.gaussian_filter(noise, 1.2, mode="wrap")).ravel())
    image = np.empty(noise.size, np.float32)
    image[order] = (np.arange(noise.size) + 1) / (noise.size + 1)
    return image.reshape(shape)


SHAPES = [(7, 7, 7), (9, 8, 10), (12, 12, 12), (2, 3, 5), (1, 4, 4)]


@pytest.mark.parametrize("seed, shape", enumerate(SHAPES))
@pytest.mark.parametrize("rough", [True, False])
@pytest.mark.parametrize("floor", [0.0, 0.4])
def test_with_a_marker_on_every_peak_it_is_flooding(seed, shape, rough, floor):
    """Cell by cell, against a queue, in a periodic box."""
    image = distinct(shape, seed, rough)
    peaks = [cell for cell in np.ndindex(shape) if peak_uphill(image, cell) == cell]
    markers = np.zeros(shape, np.int32)
    for label, cell in enumerate(peaks, 1):
        markers[cell] = label
    np.testing.assert_array_equal(watershed.native(image, markers, floor), flooded(image, markers, floor)[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rough", [True, False])
def test_without_some_markers_it_differs_from_flooding_only_at_the_shores_of_filled_basins(seed, rough):
    """Where a basin has no marker, cells that the flood comes to at their own height may be another's.

    Flooding gives such a cell to the highest neighbour with a label, also where that is in another basin; steepest
    ascent leaves it with its basin, whose label is that of the highest saddle. Else they differ only where a basin is
    filled over such a cell, which takes white noise: basins with a marker, and others above their saddles, are equal.
    """
    image = distinct((12, 12, 12), seed, rough)
    rng = np.random.default_rng(seed)
    markers = np.zeros(image.shape, np.int32)
    peaks = [cell for cell in np.ndindex(image.shape) if peak_uphill(image, cell) == cell]
    for label, cell in enumerate(rng.permutation(peaks)[:max(2, len(peaks) // 2)], 1):
        markers[tuple(cell)] = label
    expected, through = flooded(image, markers, 0.2)
    labels = watershed.native(image, markers, 0.2)
    np.testing.assert_array_equal(labels > 0, expected > 0)
    differ = [tuple(map(int, cell)) for cell in np.argwhere(labels != expected)]
    assert len(differ) < (0.15 if rough else 0.03) * (labels > 0).sum()
    for cell in differ:
        assert not markers[peak_uphill(image, cell)]
        assert labels[through[cell]] != expected[through[cell]] and (rough or through[cell] == cell)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rough", [True, False])
def test_rolling_a_map_rolls_its_labels(seed, rough):
    """To the cell, with many peaks unmarked: where no values are equal nothing is left to the numbering."""
    image = distinct((16, 16, 16), seed, rough)
    shift = tuple(np.random.default_rng(seed).integers(1, 16, 3))
    both = []
    for one in (image, np.roll(image, shift, axis=(0, 1, 2))):
        markers, smooth = watershed.find_markers(one, 0.0, 0.5, 2)
        labels = watershed.native(smooth, markers, 0.2)
        both.append((labels, watershed.join_fragments(smooth, labels, 2.0 if rough else 3.0)))
    assert 1 < both[0][1].max() < both[0][0].max()
    for one, other in zip(*both):
        assert same_partition(np.roll(one, shift, axis=(0, 1, 2)), other)


def test_peaks_are_those_of_a_maximum_filter():
    for separation in (1, 2, 3, 20):
        image = distinct((18, 18, 18), separation, True)
        markers, _ = watershed.find_markers(image, 0.0, 0.3, separation)
        highest = ndimage.maximum_filter(image, 2 * separation + 1, mode="wrap")
        np.testing.assert_array_equal(markers > 0, (image == highest) & (image >= 0.3))
        assert markers.max() == (markers > 0).sum()  # none touch


def test_well_separated_haloes_are_those_of_scikit_image_wherever_the_faces_are():
    """Gaussian peaks away from the walls for scikit-image, and rolled onto them for ours."""
    axes = np.meshgrid(*[np.arange(40)] * 3, indexing="ij")
    distance = np.zeros((40, 40, 40), np.float32)
    for centre, width in zip([(10, 10, 10), (10, 28, 12), (28, 12, 26), (26, 28, 28)], (2.0, 3.0, 2.5, 3.5)):
        offset = sum((axis - at) ** 2 for axis, at in zip(axes, centre))
        distance = np.maximum(distance, np.exp(-offset / (2 * width**2)).astype(np.float32))
    markers, _ = watershed.find_markers(distance, 0.0, 0.15, 2)
    expected = skimage_watershed(-distance, markers, mask=distance > 0.02)
    assert expected.max() == 4
    for shift in ((0, 0, 0), (25, 11, 30), (-12, -12, -12)):
        rolled = np.roll(distance, shift, axis=(0, 1, 2))
        labels = watershed.native(rolled, watershed.find_markers(rolled, 0.0, 0.15, 2)[0], 0.02)
        assert same_partition(np.roll(expected, shift, axis=(0, 1, 2)), labels)


@pytest.mark.parametrize("shift", [(0, 0, 0), (20, 14, 9)])
@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_a_perfect_map_comes_back_exactly(shift, smoothing):
    """The regression target itself, of haloes that touch, also across the faces of the box.

    Their radii are alike. At the border of one less than some 0.7 times as wide as its neighbour the map is higher than
    a cell farther inside the neighbour, and some cells of the border go to the wrong side; flooding does the same.
    """
    halo_id = np.full((40, 40, 40), -1, np.int32)
    axes = np.meshgrid(*[np.arange(40)] * 3, indexing="ij")
    spheres = [((10, 10, 10), 8), ((25, 10, 10), 7), ((10, 25, 12), 7), ((20, 20, 28), 9)]
    for label, (centre, size) in enumerate(spheres):
        ball = sum((axis - at) ** 2 for axis, at in zip(axes, centre)) < (size + 0.4) ** 2
        halo_id[ball & (halo_id < 0)] = label
    assert any((halo_id[:-1] != halo_id[1:]).ravel() & (np.minimum(halo_id[:-1], halo_id[1:]) >= 0).ravel())
    halo_id = np.roll(halo_id, shift, axis=(0, 1, 2))
    labels = native(data.distance_map(halo_id), smoothing=smoothing, floor=0.0)
    assert labels.max() == 4 and same_partition(labels, halo_id)


def test_haloes_of_a_simulation_come_back_one_by_one_from_their_map(boxes):
    """They are no spheres: many have several peaks, and the whole halo is one by their dynamics alone.

    Counted are regions of half as many cells as the smallest halo: crumbs that do not touch the rest of it cannot join.
    """
    pieces, found, haloes, right, cells = 0, 0, 0, 0, 0
    for path in boxes:
        with Simulation(path) as box:
            true = data.lagrangian_halo_id(box, 100)
        distance = data.distance_map(true)
        labels = native(distance, smoothing=0.0, floor=0.0)
        joined = watershed.join_fragments(distance, labels, 0.0, dynamics=0.5)
        inside = (true >= 0) & (joined > 0)
        shared = np.zeros((true.max() + 1, joined.max() + 1), int)
        np.add.at(shared, (true[inside], joined[inside]), 1)
        pieces, found = (so_far + (np.bincount(regions[regions > 0]) >= 50).sum()
                         for so_far, regions in ((pieces, labels), (found, joined)))
        haloes += true.max() + 1
        right, cells = right + shared.max(axis=1).sum(), cells + (true >= 0).sum()
    assert pieces > 1.3 * haloes and 0.97 * haloes <= found <= 1.03 * haloes and right > 0.92 * cells


@pytest.mark.parametrize("preset_name", config.PRESETS)
def test_haloes_of_a_perfect_map_have_the_cells_of_the_true_ones(preset_name, boxes):
    """Haloes of a simulation, and balls. What is missing are crumbs without a peak, which touch no other cell."""
    with Simulation(boxes[0]) as box:
        true = data.lagrangian_halo_id(box, 20)
    settings = config.replace(config.preset(TrainConfig, preset_name), {"minimum": 1})
    found = predict.find_haloes(data.distance_map(true), settings)
    missing = (found < 0) & (true >= 0)
    assert not ((found >= 0) & (true < 0)).any() and missing.sum() < 0.01 * (true >= 0).sum()
    for axis in range(3):
        for step in (-1, 1):
            assert not (missing & np.roll(found >= 0, step, axis)).any()
    _, true = balls(64, [(12, 12, 12), (40, 12, 12), (12, 40, 14), (40, 40, 40)], [7, 6, 5, 4])
    found = predict.find_haloes(data.distance_map(true - 1), settings)
    np.testing.assert_array_equal(found, true - 1)


def test_runs_of_earlier_versions_flood_the_smoothed_map():
    distance, _ = balls(40, [(12, 12, 12), (28, 28, 28)], [7, 5])
    old = config.replace(config.preset(TrainConfig, "demo"), {"minimum": 1, "flooded": "smoothed", "depth": 0.0})
    smooth = ndimage.gaussian_filter(distance, 0.5, mode="wrap")
    np.testing.assert_array_equal(predict.find_haloes(distance, old) >= 0, smooth > old.floor)


def test_where_nothing_is_there_is_no_peak():
    distance, _ = balls(32, [(12, 12, 12)], [6])
    markers, _ = watershed.find_markers(distance, 0.0, 0.0, 1)
    assert (markers > 0).sum() == markers.max() == 1


def test_saddles_are_the_highest_of_all_pairs_of_cells(monkeypatch):
    """Against a loop over pairs of cells; small tables are put aside when they are full, and threads share the rows."""
    monkeypatch.setattr(basins, "FEWEST", 0)
    monkeypatch.setattr(basins.os, "cpu_count", lambda: 3)
    image = distinct((14, 14, 14), 0, True)
    labels = np.random.default_rng(1).integers(0, 200, image.shape, dtype=np.int32)
    expected = {}
    for cell in np.ndindex(image.shape):
        for other in neighbours(cell, image.shape):
            pair = tuple(sorted((int(labels[cell]), int(labels[other]))))
            if pair[0] and pair[0] != pair[1]:
                expected[pair] = max(expected.get(pair, 0), min(image[cell], image[other]))
    one, other, height = watershed.saddles(image, labels)
    assert dict(zip(zip(one.tolist(), other.tolist()), height)) == expected
    assert np.all(np.diff(height) <= 0)


@pytest.mark.parametrize("dynamics", [0.2, 0.3, 0.4])
def test_regions_join_by_dynamics_as_a_loop_over_thresholds_says(dynamics):
    """As the map is flooded from above, two lakes that meet are one where the lower peak is hardly above the water."""
    image = ndimage.gaussian_filter(np.random.default_rng(4).normal(size=(16, 16, 16)), 1.0, mode="wrap")
    image = np.clip(image / image.max(), 0, None).astype(np.float32)
    labels = native(image, smoothing=0.0, floor=0.3)
    lakes = {label: ({label}, image[labels == label].max()) for label in range(1, labels.max() + 1)}
    for one, other, height in zip(*watershed.saddles(image, labels)):
        (first, high), (second, low) = lakes[int(one)], lakes[int(other)]
        if first is not second and min(high, low) - height < np.float32(dynamics):
            lakes.update(dict.fromkeys(first | second, (first | second, max(high, low))))
    expected = np.zeros_like(labels)
    for members, _ in lakes.values():
        expected[np.isin(labels, list(members))] = min(members)
    joined = watershed.join_fragments(image, labels, 0.0, dynamics)
    assert 1 < joined.max() < labels.max() and same_partition(joined, expected)


def test_threads_do_not_change_the_result(monkeypatch):
    distance, line = bumps(), Line((1.0, 1000.0), (0.3, 0.9))
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(basins, "FEWEST", 0)
        monkeypatch.setattr(basins.os, "cpu_count", lambda cores=cores: cores)
        labels = watershed.join_fragments(distance, native(distance), 0.5)
        paths = watershed.trajectories(distance, labels)
        found.append((labels, paths.cell, paths.distance, watershed.cut_sizes(paths, line)))
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)


def test_labels_need_no_memory_beside_the_markers():
    """A box of 1024^3 cells has 4 GiB of labels: they are written over the markers, and indices have 32 bits."""
    distance = bumps(n=64)
    markers, smooth = watershed.find_markers(distance, 0.0, 0.15, 2)
    expected = watershed.native(smooth, markers, 0.02)
    tracemalloc.start()
    labels = watershed.native(smooth, markers, 0.02, out=markers)
    joined = watershed.join_fragments(smooth, labels, 2.5, out=labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert joined is labels is markers and labels.dtype == np.int32 and same_partition(labels > 0, expected > 0)
    assert peak < labels.nbytes
    paths = watershed.trajectories(distance, labels)
    assert (paths.cell.dtype, paths.distance.dtype) == (np.int32, np.float32)


def test_catalogues_are_those_of_sums_over_the_cells():
    distance, _ = balls(48, [(12, 12, 12), (32, 14, 12), (30, 34, 30)], [7, 8, 4])
    paths = watershed.trajectories(distance, native(distance))
    halo_id = watershed.label_haloes(paths, paths.size, distance.shape, 1)
    found = watershed.catalogue(halo_id, distance, 96.0, 3.0)
    for region in regionprops(halo_id + 1, intensity_image=distance):
        row = region.label - 1
        assert found["cells"][row] == region.num_pixels and found["mass"][row] == 3 * region.num_pixels
        assert found["peak"][row] == pytest.approx(region.intensity_max)
        np.testing.assert_allclose(found["position"][row], 2 * (np.array(region.centroid) + 0.5), atol=0.02)


def test_the_watershed_is_compiled_only_when_it_runs():
    done = subprocess.run([sys.executable, "-c", "import sys, kerasgal.apps.protohalo.watershed, kerasgal.cli\n"
                           "assert 'numba' not in sys.modules"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("writable", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_where_the_package_cannot_be_written_compiled_code_goes_to_the_users_cache_or_nowhere(writable, tmp_path):
    """A file stands where the package's `__pycache__` would be, and, to be refused there too, where the home would."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__pycache__").touch()
    shutil.copy(basins.__file__, tmp_path / "package" / "basins.py")
    home = tmp_path / "home"
    home.mkdir() if writable else home.touch()
    program = ("import numpy as np, basins\n"
               "labels = np.full(3, basins.PEAK, np.int32)\n"
               "assert basins.number_peaks(labels) == 3 and labels.tolist() == [1, 2, 3]")
    unset = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path / "package",
                          env={**environment, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0 and done.stderr == ""
    assert bool(list(home.rglob("*.nbi"))) == writable


@pytest.mark.parametrize("height, count", [(0.1, 0), (0.15, 1), (1.0, 1)])
def test_a_map_that_is_the_same_everywhere_is_one_peak_or_none(height, count):
    flat = np.full((12, 12, 12), height, np.float32)
    labels = native(flat, smoothing=0.0)
    assert np.all(labels == count)
    assert not native(np.zeros_like(flat), smoothing=0.0).any()


def test_one_peak_has_all_cells_above_the_floor():
    distance, _ = balls(24, [(1, 22, 12)], [9])
    np.testing.assert_array_equal(native(distance, smoothing=0.0, floor=0.1) == 1, distance > 0.1)


def test_plateaus_belong_to_what_they_touch():
    """A broad top is one peak, whose shape has several cells of locally largest index, and a terrace is none."""
    distance = np.zeros((20, 20, 20), np.float32)
    distance[4:16, 4:16, 9:12] = 0.3
    distance[6:8, 6:14, 10] = distance[6:14, 6:8, 10] = distance[6:14, 12:14, 10] = 0.8  # a horseshoe
    for shift in ((0, 0, 0), (10, 10, 10), (7, 13, 3)):
        labels = native(np.roll(distance, shift, axis=(0, 1, 2)), smoothing=0.0)
        np.testing.assert_array_equal(labels, np.roll(distance, shift, axis=(0, 1, 2)) > 0.02)


@pytest.mark.parametrize("shift", [(20, 20, 20), (3, -11, 17), (1, 0, 0)])
def test_objects_do_not_depend_on_where_the_faces_are(shift):
    """Objects cut or merged at seams are what users of segmentation tools complain of most."""
    distance = bumps()
    labels = native(distance)
    assert labels.max() > 20
    rolled = native(np.roll(distance, shift, axis=(0, 1, 2)))
    assert same_partition(np.roll(labels, shift, axis=(0, 1, 2)), rolled)


def test_a_sphere_across_the_corner_is_one_halo():
    distance, _ = balls(32, [(0, 0, 0)], [8])
    labels = native(distance)
    assert labels.max() == 1
    paths = watershed.trajectories(distance, labels)
    halo_id = watershed.label_haloes(paths, paths.size, distance.shape, 1)
    found = watershed.catalogue(halo_id, distance, 32.0, 2.0)
    centre = np.array([0.5, 0.5, 0.5])
    np.testing.assert_allclose((found["position"][0] - centre + 16) % 32, 16, atol=1e-6)
    assert found["mass"][0] == 2.0 * found["cells"][0] and found["peak"][0] == pytest.approx(1)


def test_a_tie_between_neighbours_is_one_marker():
    distance = np.zeros((16, 16, 16), np.float32)
    distance[7:9, 8, 8] = 1.0
    for shift in (0, 8):  # inside the box, and across its face
        markers, _ = watershed.find_markers(np.roll(distance, shift, axis=0), 0.0, 0.15, 2)
        assert markers.max() == 1 and (markers == 1).sum() == 2
    cone = np.zeros((16, 16, 16), np.float32)
    cone[7:9, 7:9, 7:9] = 1.0
    markers, _ = watershed.find_markers(np.roll(cone, 8, axis=(0, 1, 2)), 0.0, 0.15, 2)  # eight cells, eight corners
    assert markers.max() == 1 and (markers == 1).sum() == 8


def test_fragments_of_one_halo_are_joined_and_touching_haloes_are_not():
    """A halo with two peaks on either side of a face of the box, and two spheres that touch at their borders."""
    distance, _ = balls(48, [(3, 0, 0), (45, 0, 0), (18, 24, 24), (30, 24, 24)], [10, 10, 6, 6])
    labels = native(distance, smoothing=0.0)
    assert labels.max() == 4
    joined = watershed.join_fragments(distance, labels, 2.5)
    assert joined[5, 0, 0] == joined[-5, 0, 0] > 0 and joined[18, 24, 24] != joined[30, 24, 24]
    assert joined.max() == 3 and np.array_equal(joined > 0, labels > 0)
    np.testing.assert_array_equal(watershed.join_fragments(distance, labels, 100.0), labels)


@pytest.mark.parametrize("chosen", VOLUMES)
def test_trajectories_are_those_of_a_loop_over_regions(chosen):
    distance = bumps()
    labels = native(distance)
    paths = watershed.trajectories(distance, labels, chosen)
    regions = regionprops(labels, intensity_image=distance)
    assert len(paths.size) == len(regions)
    for region, start, size in zip(regions, paths.start, paths.size):
        value = np.sort(distance[labels == region.label])[::-1].astype(float)
        volume = np.arange(1, len(value) + 1)
        sphere = len(value) if chosen == "native" else volume
        expected = value.cumsum() / volume * (3 * sphere / (4 * np.pi)) ** (1 / 3)
        assert size == region.num_pixels
        np.testing.assert_allclose(paths.distance[start:start + size], expected, rtol=1e-5)
        np.testing.assert_array_equal(paths.volume()[start:start + size], volume)


def test_the_cut_is_the_last_meeting_with_the_line():
    distance = bumps()
    paths = watershed.trajectories(distance, native(distance))
    line = Line((1.0, 1000.0), (0.3, 0.9))
    for size, start, cut in zip(paths.size, paths.start, watershed.cut_sizes(paths, line)):
        volume = np.arange(1, size + 1)
        above = paths.distance[start:start + size] >= np.interp(np.log(volume), np.log([1, 1000]), [0.3, 0.9])
        assert cut == (volume[above].max() if above.any() else 0)
    np.testing.assert_array_equal(watershed.cut_sizes(paths, Line((1.0, 2.0), (0.0, 0.0))), paths.size)
    assert not watershed.cut_sizes(paths, Line((1.0, 2.0), (99.0, 99.0))).any()


def test_trajectories_sampled_box_by_box_are_those_sampled_together():
    boxes = [watershed.trajectories(distance, native(distance)) for distance in
             (bumps(16, seed=1), bumps(24, seed=2), np.zeros((8, 8, 8), np.float32))]
    together, joined = watershed.sample(boxes), watershed.joined([watershed.sample([paths]) for paths in boxes])
    assert len(boxes[0].size) and len(boxes[1].size) and not len(boxes[2].size)
    for name in ("volume", "distance", "size"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(together, name))


def test_sampled_sizes_follow_the_exact_ones():
    distance = bumps(seed=3)
    paths = watershed.trajectories(distance, native(distance))
    sampled = watershed.sample([paths])
    for level in (0.5, 0.8, 1.1):
        line = Line((1.0, 1000.0), (level, level))
        exact, fast = watershed.cut_sizes(paths, line), watershed.sampled_cut_sizes(sampled, line)
        large = exact > 30
        np.testing.assert_allclose(fast[large], exact[large], rtol=0.06)


def test_haloes_are_numbered_by_size_and_small_ones_dropped():
    distance, _ = balls(48, [(10, 10, 10), (30, 10, 10), (30, 34, 30)], [5, 8, 2])
    paths = watershed.trajectories(distance, native(distance))
    halo_id = watershed.label_haloes(paths, paths.size, distance.shape, 100)
    counts = np.bincount(halo_id[halo_id >= 0])
    assert len(counts) == 2 and counts[0] > counts[1] and halo_id[30, 10, 10] == 0 and halo_id[30, 34, 30] == -1


def test_calibration_recovers_the_mass_function_of_diluted_spheres():
    """True haloes are balls; the map shows them inside wide flanks, as a blurred prediction would."""
    rng = np.random.default_rng(1)
    all_paths, sizes, n = [], [], 72
    for _ in range(8):
        centres = np.stack(np.meshgrid(*[np.arange(0, n, 24)] * 3, indexing="ij"), -1).reshape(-1, 3)
        centres = (centres + rng.integers(-2, 3, (27, 3))) % n
        distance, labels = balls(n, centres, rng.uniform(4, 8, 27))
        sizes.append(np.bincount(labels.ravel())[1:])
        blurred = ndimage.gaussian_filter(distance, 1.5, mode="wrap")
        all_paths.append(watershed.trajectories(blurred, native(blurred, floor=0.002)))
    sizes = np.concatenate(sizes)
    edges = np.array([350, 700, 1400, 2800])
    true_count = np.histogram(sizes, edges)[0]
    uncut = np.histogram(np.concatenate([paths.size for paths in all_paths]), edges)[0]
    assert np.abs(uncut - true_count).sum() > 0.5 * true_count.sum()  # they are too large
    line = watershed.calibrate(all_paths, sizes, 250)
    count = np.histogram(np.concatenate([watershed.cut_sizes(paths, line) for paths in all_paths]), edges)[0]
    assert np.abs(count - true_count).sum() < 0.15 * true_count.sum(), (count, true_count)


def test_the_histogram_counts_where_trajectories_leave_a_distance():
    distance = bumps(seed=5)
    paths = watershed.trajectories(distance, native(distance))
    edges, distances = np.array([20, 60, 180, 540]), np.array([0.4, 0.8])
    counts = watershed.histogram(watershed.sample([paths]), edges, distances)
    for row, level in zip(counts, distances):
        left = [np.flatnonzero(paths.distance[start:start + size] >= level).max(initial=-1) + 1
                for start, size in zip(paths.start, paths.size)]
        assert np.abs(row - np.histogram(left, edges)[0]).max() <= 1  # volumes are sampled
    line = watershed.calibrate([paths], paths.size[paths.size > 50] / 2, 40, "histogram")
    assert len(line.distance) == watershed.KNOTS and 0 <= min(line.distance)
    assert max(line.distance) <= paths.distance.max() * (1 + 1e-6)


def test_a_map_without_peaks_has_no_haloes():
    flat = np.full((16, 16, 16), 0.1, np.float32)
    paths = watershed.trajectories(flat, native(flat))
    assert len(paths.size) == 0 and len(watershed.cut_sizes(paths, Line((1.0, 2.0), (0.0, 0.0)))) == 0
    halo_id = watershed.label_haloes(paths, paths.size, flat.shape, 1)
    assert np.all(halo_id == -1) and len(watershed.catalogue(halo_id, flat, 1.0, 1.0)["mass"]) == 0
    assert watershed.calibrate([paths], np.array([200.0]), 100).distance == (0.0,) * watershed.KNOTS
