import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops
from skimage.segmentation import watershed as skimage_watershed

from kerasgal.apps.protohalo import watershed
from kerasgal.apps.protohalo.watershed import Line


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
    markers, smooth = watershed.find_markers(distance, smoothing, 0.15, 2)
    return watershed.native(smooth, markers, floor)


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


def test_trajectories_are_those_of_a_loop_over_regions():
    distance = bumps()
    labels = native(distance)
    paths = watershed.trajectories(distance, labels)
    regions = regionprops(labels, intensity_image=distance)
    assert len(paths.size) == len(regions)
    for region, start, size in zip(regions, paths.start, paths.size):
        value = np.sort(distance[labels == region.label])[::-1].astype(float)
        volume = np.arange(1, len(value) + 1)
        expected = value.cumsum() / volume * (3 * volume / (4 * np.pi)) ** (1 / 3)
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
