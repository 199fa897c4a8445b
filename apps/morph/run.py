"""A trained run of morph: how real a galaxy looks (Zanisi et al. 2020)."""

import itertools
import json
import logging
from pathlib import Path

import numpy as np

from kerasgal import run_folder
from kerasgal.apps.morph.config import APP, TrainConfig
from kerasgal.errors import DataError, DomainError, RunError, SettingError, UnseenError
from kerasgal.networks import folder_of
from kerasgal.run import Prediction, Run, as_list, display_name
from kerasgal.tables import SUFFIXES

REAL, ARCHETYPE = "real", "archetype"
PREPARATION = ("bands", "sky", "softening", "crop", "size", "rebin", "bits")
SEEN = "unit", "zero_point"  # what both must have seen images in
COMMON = (*PREPARATION, "likelihood")  # what both networks must have in common
PEEK = 64  # images that are held against the domain before the first one is scored

log = logging.getLogger(__name__)


class Scores(Prediction):
    """The scores of images, a row for each.

    A mapping of columns, as they stand in the table that `save` writes:

    ::

        id                  name of the image
        log_p_real          ln p under the network of real galaxies [nats]
        log_p_archetype     ln p under that of archetypes
        llr                 their difference, the log-likelihood ratio
        galaxy_pixels       pixels that are the galaxy's own, of the prepared image
        ..._galaxy          the same three, of these pixels alone
        flag                0, or a sum of bits: see `kerasgal.apps.morph.score`
        error               why there are no numbers, empty where there are
        ra, dec, object     of the galaxy [deg], where headers or image sets say them; NaN or empty for an image that
                            does not

    With `maps`, `image` (n, y, x), or (n, y, x, band), as the networks saw it, and `map_real` and
    `map_archetype`, ln p of its pixels.
    """

    units = {"ra": "deg", "dec": "deg"}

    def columns(self):
        return {name: values for name, values in self.arrays.items() if values.ndim == 1}

    def plot(self):
        """The distribution of the log-likelihood ratios."""
        from kerasgal.apps.morph import figures

        return figures.ratios({"images": self["llr"][np.isfinite(self["llr"])]})

    def words(self):
        failed = np.count_nonzero(self["error"] != "")
        flagged = np.count_nonzero(self["flag"])
        return (f"{len(self['id'])} images" + (f", {failed} of which could not be scored" if failed else "")
                + (f", {flagged} flagged" if flagged else ""))


class Morph(Run):
    """A trained run of morph.

    Examples
    --------
    >>> import kerasgal as kg
    >>> run = kg.load("RUN")                            # doctest: +SKIP
    >>> scores = run.predict("stamps/*.fits")           # doctest: +SKIP
    >>> scores.table["llr"].mean()                      # doctest: +SKIP
    """

    app, Config, phases = APP, TrainConfig, (REAL, ARCHETYPE)
    checked = ("bands", "pixel_scale")  # flux is brought to the run's unit, or refused
    limits = ("Not whether one galaxy is real: look at how far the ratios of single galaxies scatter. Not realism, "
              "where sets have another PSF, pixels, noise or preparation than the training's, or other sizes and "
              "masses than each other: then the ratio measures that. A wider PSF and more noise are tried here; "
              "`match` compares galaxies that are alike.")
    suffixes = SUFFIXES
    label = "scores"

    @staticmethod
    def build(config, phase=""):
        from kerasgal.apps.morph.score import build

        network = build(config)
        if phase:
            network.name = phase  # two networks in one model need two names
        return network

    @property
    def real(self):
        """The network of real galaxies."""
        return self.networks[REAL]

    @property
    def archetype(self):
        """The network of archetypes."""
        return self.networks[ARCHETYPE]

    @property
    def unit(self):
        """The unit of flux that it was trained in, None where that is not known."""
        known = self.domain.get("unit", [])
        return known[0] if len(known) == 1 else None

    @property
    def zero_point(self):
        """AB magnitude of one such unit, None where that is not known."""
        low, high = self.domain.get("zero_point", (None, None))
        return low if low == high else None

    @classmethod
    def check_phase(cls, folder, phase):
        if not (folder / phase / run_folder.CONFIG).exists():
            raise RunError(f"{folder} has no network trained on {phase} images: train it with on={phase}")

    @classmethod
    def load(cls, run):
        made = super().load(run)
        other = run_folder.load_config(made.folder / REAL, TrainConfig, APP)
        differ = [name for name in COMMON if getattr(made.config, name) != getattr(other, name)]
        if differ:
            raise RunError(f"{run}: the two networks were trained with another {', '.join(differ)}; their likelihoods "
                           "cannot be compared")
        made.config = other
        made.domain, known = (run_folder.read_json(made.folder / phase / run_folder.DOMAIN) for phase in cls.phases)
        for name in SEEN:
            if name in made.domain and name in known and made.domain[name] != known[name]:
                raise RunError(f"{run}: the two networks were trained on images of another {name}, "
                               f"{made.domain[name][0]} and {known[name][0]}; their likelihoods cannot be compared")
        return made

    @classmethod
    def train(cls, training=None, validation=None, *, run=None, archetypes=None, on=REAL, config=None, preset=None,
              resume=False, overwrite=False, init=None, tensorboard=False, masks=None, extension=None, unit=None,
              zero_point=None, flux_scale=None, memory=None, **settings):
        """Train one network, or with `archetypes` both, on images. Every tenth validates.

        Both must see images alike: what bands, sky, softening, crop, size, rebin and bits make of them is stored with
        the run and done again in scoring.

        Parameters
        ----------
        training : path, or list of paths
            Files, folders or globs of images.
        validation : None
            Not to be given: every tenth image validates.
        run : str or Path
            Run folder to write, `morph-run` without one.
        archetypes : path, or list of paths, optional
            Train on these, too, as archetypes.
        on : {"real", "archetype"}
            What `training` is.
        masks, extension, unit, zero_point, flux_scale
            See `kerasgal.readers.images.stream`.
        config, preset, resume, overwrite, init, tensorboard, **settings
            See `Run.train`.
        memory : None
            Not to be given: images are held in memory.

        Returns
        -------
        Morph
            None where only one of the two networks is trained.
        """
        from kerasgal import quiet
        from kerasgal.apps.morph.train import train_network
        from kerasgal.readers import images as readers

        quiet.import_tensorflow()
        folder = Path(run if run is not None else cls.default_folder())
        cls.store(memory, folder)
        if validation:
            raise SettingError("`validation`: every tenth image validates; others are not taken")
        if on not in cls.phases:
            raise SettingError(f"on={on!r}: accepted are {', '.join(cls.phases)}", value=on, accepted=cls.phases)
        if resume and overwrite:
            raise SettingError("resume=True and overwrite=True contradict each other: give one of them")
        archetypes = as_list(archetypes)
        if archetypes and on == ARCHETYPE:
            raise SettingError("on=archetype says what the images are: give `archetypes` by one of the two")
        training = as_list(training)
        if not training and not resume:
            raise SettingError("images to train on are missing")
        begun = [phase for phase in cls.phases if (folder / phase / run_folder.CONFIG).exists()]
        if resume and not begun:
            raise RunError(f"resume=True: {folder} has no run to go on with")
        jobs = {on: training} | ({ARCHETYPE: archetypes} if archetypes else {})
        if resume and not training:
            jobs = {phase: list(run_folder.recorded_data(folder / phase)[0]) for phase in begun} | (
                {ARCHETYPE: archetypes} if archetypes else {})
        asked = {"masks": masks, "extension": extension, "unit": unit, "zero_point": zero_point,
                 "flux_scale": flux_scale}
        asked = json.loads(json.dumps({name: value for name, value in asked.items() if value is not None}))
        left = [*jobs]
        with run_folder.locked(folder):
            for phase, paths in jobs.items():
                place = folder / phase
                other, = (name for name in cls.phases if name != phase)
                going_on = resume and phase in begun
                # Images are seen in the unit of the run that goes on, or of the other network where that stays.
                whose = place if going_on else folder / other
                known = run_folder.read_json(whose / run_folder.DOMAIN) if going_on or other not in left else {}
                # Interrupted before the second network was begun: that sees images, and begins, as the first does.
                like = place if phase in begun or not begun else folder / begun[0]
                start = run_folder.origin_of_phases(like) if resume and not init and phase not in begun else init
                given = like / run_folder.CONFIG if resume and config is None and preset is None else config
                chosen = cls.configure(given, preset, **settings)
                run_folder.check_folder(place, APP, resume, overwrite)
                log.info(f"network of {phase} images")
                options = asked or (run_folder.read_with(place) if resume else {})
                data = {"training": [str(Path(path).resolve()) for path in paths], "validation": [],
                        **({"read_with": options} if options else {})}
                left.remove(phase)
                train_network(readers.stream(paths, bands=chosen.names, **options), chosen, place, known, data=data,
                              resume=going_on, overwrite=overwrite, tensorboard=tensorboard,
                              init=folder_of(start) / phase if start else None)
        if all((folder / phase / run_folder.BEST).exists() for phase in cls.phases):
            return cls.load(folder)
        log.info(f"{folder}: the other network is still to be trained, with on={ARCHETYPE if on == REAL else REAL}")
        return None

    def predict(self, images, *, maps=False, masks=None, extension=None, unit=None, zero_point=None, flux_scale=None,
                pixel_scale=None, outside_domain=False):
        """Score images: ln p under both networks, their ratio, and the parts of the galaxy's own pixels.

        Parameters
        ----------
        images : path, list of paths, ImageSet, or array
            Files, folders or globs; an open image set; or an array (n, y, x) or (y, x), for a run of several bands
            (n, y, x, band) or (y, x, band), with the bands in the run's order.
        maps : bool
            Keep what the networks saw, and ln p of each pixel.
        masks, extension, unit, zero_point, flux_scale
            See `kerasgal.readers.images.stream`; `unit` and the rest say of an array what its flux is in.
        pixel_scale : float, optional
            Of an array, arcsec.
        outside_domain : bool
            Go on where the images are not like those of the training, with a note.

        Returns
        -------
        Scores
            An image that cannot be read or prepared has its error in the table.

        Raises
        ------
        DomainError
            If the images have other bands or pixels than those of the training, or most of the first show no galaxy.
        """
        from kerasgal.apps.morph.score import score
        from kerasgal.apps.morph.tables import columns_of
        from kerasgal.plotting import counted

        stream, notes = self.stream(images, masks=masks, extension=extension, unit=unit, zero_point=zero_point,
                                    flux_scale=flux_scale, pixel_scale=pixel_scale, outside_domain=outside_domain)
        rows, kept = [], {"image": [], "map_real": [], "map_archetype": []}
        with counted("scored") as add:
            for scored, batch in score(self, stream):
                rows += scored
                add(len(scored))
                if maps and batch:
                    for name, values in zip(kept, (batch[1], *batch[2])):
                        kept[name].append(values)
        arrays = columns_of(rows)
        if maps:
            arrays |= {name: np.concatenate(values) for name, values in kept.items() if values}
        return Scores(self, name_of(images), arrays, notes)

    score = predict

    def write_scores(self, images, path, *, maps=None, resume=False, overwrite=False, outside_domain=False, client=None,
                     **options):
        """Score any number of images into a table, as they come; returns how many, how many failed, and were flagged.

        path: of a table, see `kerasgal.tables.write_table`; maps: HDF5 file for prepared images and maps; resume: go on
        with a table that was interrupted; client: of Dask, see `kerasgal.cluster.connect`, whose workers score what is
        read here; options: those of `predict`. Nothing is held but a batch, or with a client some for each worker.
        """
        from kerasgal.apps.morph import tables

        stream, notes = self.stream(images, outside_domain=outside_domain, **options)
        header = {"source": display_name(name_of(images)), **({"notes": "; ".join(notes)} if notes else {})}
        return tables.write(self, stream, Path(path), maps=maps, resume=resume, overwrite=overwrite, client=client,
                            read_with=options, **header)

    def evaluate(self, sets, *, match=(), control=None, outside_domain=False, client=None, **options):
        """Compare sets of images by their likelihood ratios: means and Delta<LLR>, medians, separation, planes, maps.

        Delta<LLR> is the mean ratio of a set less that of the first, in nats: the closer to 0, the better they agree.

        Parameters
        ----------
        sets : dict
            {name: images, as `predict` takes them}; the first is of observations, with which the others are compared.
        match : str or list of str
            Columns of the image sets in which sets are matched before they are compared, such as log_mass, radius_kpc
            and n; several names in one string stand between commas. radius_kpc and log_radius (of it, log10) are known
            where radius [arcsec] and redshift are. See `kerasgal.apps.morph.differences`.
        control : str, optional
            Name of the set that shows empty sky, which is no reason to refuse it. Without a set of this name it is made
            of the borders of the first set's images.
        outside_domain : bool
            Go on where images are not like those of the training, with a note.
        client : distributed.Client, optional
            Whose workers score the images, which are read here; see `kerasgal.cluster.connect`. The same numbers.
        **options
            masks, extension, unit, zero_point and flux_scale of `predict`.

        Returns
        -------
        Comparison
            An Evaluation with `planes`, the numbers of the planes of size, mass and Sersic index.

        Raises
        ------
        UnseenError
            If the run was trained on one of the files.
        SettingError
            If no two sets, the first among them, have the columns of `match`.
        """
        from kerasgal.apps.morph.evaluate import evaluate

        if not isinstance(sets, dict) or not sets:
            raise SettingError(f"expected sets of images, {{name: images}}, received {sets!r}")
        match = [name.strip() for part in as_list(match) for name in part.split(",") if name.strip()]
        if control is not None and control == next(iter(sets)):
            raise SettingError(f"control={control}: the first set is that of the observed")
        self.check_unseen(list(sets.values()))
        notes, streams = [], {}
        for name, images in sets.items():
            stream, found = self.stream(images, outside_domain=outside_domain, **options)
            notes += found
            streams[name] = lambda stream=stream: stream
        return evaluate(self, streams, notes, match=match, control=control, client=client)

    def rank(self, images, against, *, outside_domain=False, **options):
        """Rank images by how real they look: their likelihood ratios among those of observed galaxies.

        Parameters
        ----------
        images : path, list of paths, ImageSet, or array
            As `predict` takes them.
        against : path, list of paths, ImageSet, or array
            Observed galaxies that the run was not trained on.
        outside_domain : bool
            Go on where images are not like those of the training, with a note.
        **options
            masks, extension, unit, zero_point and flux_scale of `predict`, for both.

        Returns
        -------
        Ranking
            An Evaluation with a `table`, the most real first.

        Raises
        ------
        UnseenError
            If the run was trained on one of the files.
        DataError
            If fewer than 20 of the observed can be scored.
        """
        from kerasgal.apps.morph.rank import rank

        self.check_unseen([images, against])
        given, notes = self.stream(images, outside_domain=outside_domain, **options)
        observed, more = self.stream(against, outside_domain=outside_domain, **options)
        return rank(self, given, observed, list(dict.fromkeys([*notes, *more])))

    def sample(self, number, *, on=REAL, seed=0):
        """Images drawn from one of the networks, (number, y, x), stretched as it sees them.

        Of several bands (number, y, x, band).
        """
        from kerasgal.apps.morph.sample import sample

        drawn = sample(self.networks[on], number, seed=seed, bits=self.config.bits, likelihood=self.config.likelihood)
        return drawn[..., 0] if self.config.channels == 1 else drawn

    def check_unseen(self, sources):
        """Raise UnseenError if one of the images' files was trained on."""
        if self.folder is None:
            return
        asked = files_of(source for given in sources for source in as_list(getattr(given, "path", given)))
        for phase in self.phases:
            again = asked & files_of(run_folder.seen_by(self.folder / phase))
            if phase == REAL:  # archetypes do not say which they are
                again |= set(run_folder.told_again(self.folder / phase, asked))
            if again:
                some = ", ".join(sorted(map(str, again))[:3])
                raise UnseenError(f"{some} was used in the training of {self.folder}; evaluate on data it never saw")

    def stream(self, images, *, pixel_scale=None, outside_domain=False, **options):
        """The stream of `Image`s of what `predict` takes, and notes on them.

        The first ones are held against the domain before any is scored; a later one that is outside has an error.
        """
        from kerasgal.apps.morph.prepare import check_bands
        from kerasgal.apps.morph.train import features

        found = iter(stream_of(images, pixel_scale=pixel_scale, bands=self.config.names, **options))
        first = list(itertools.islice(found, PEEK))
        notes = []

        def look(image):
            if not image.error and notes in ([], self.stopped):  # what is said once is not looked for again
                notes[:] = self.check_domain(image.id, features(image), outside_domain=outside_domain)

        for image in first:
            if not image.error and notes in ([], self.stopped):
                look(image)
                check_bands(image, self.config)

        def checked():
            yield from first
            for image in found:
                try:
                    look(image)
                    yield image
                except DomainError as error:
                    yield type(image)(image.id, None, error=str(error), columns=image.columns, facts=image.facts)

        return checked(), notes

    def served(self):
        from kerasgal.apps.morph.score import pair

        description = {"input": "images prepared as `preparation` says, stretched flux in [0, 1]",
                       "preparation": {name: getattr(self.config, name) for name in PREPARATION},
                       "output": ["ln p of the pixel, network of real galaxies", "the same, network of archetypes"]}
        return pair(self), description


def name_of(images):
    """What a table says its images came from."""
    if isinstance(images, np.ndarray):
        return images
    return ", ".join(str(getattr(source, "path", source)) for source in as_list(images)[:3])


def stream_of(images, *, pixel_scale=None, unit=None, zero_point=None, flux_scale=None, bands=(), **options):
    """A stream of `Image`s of paths, an open image set or an array; bands: names of those that are wanted."""
    from kerasgal.readers import images as readers

    if not isinstance(images, np.ndarray):
        if pixel_scale is not None:
            raise SettingError("`pixel_scale`: files say so themselves; that is for arrays")
        paths = [getattr(source, "path", source) for source in as_list(images)]
        if not paths:
            raise DataError("there are no images: the list of paths is empty")
        return readers.stream(paths, unit=unit, zero_point=zero_point, flux_scale=flux_scale, bands=bands,
                              **options)
    axes, last = (4, len(bands)) if len(bands) > 1 else (3, None)
    array = images[None] if images.ndim == axes - 1 else images
    if array.ndim != axes or last not in (None, array.shape[-1]) or array.dtype.kind not in "iuf" or not array.size:
        accepted = f"(n, y, x, {last}) or (y, x, {last})" if last else "(n, y, x) or (y, x)"
        raise DataError(f"the array has the shape {images.shape} and the type {images.dtype}: expected are numbers, "
                        f"{accepted}", value=images.shape)
    return (readers.Image(str(number), pixels.astype(np.float32), unit=unit, zero_point=zero_point,
                          flux_scale=flux_scale, pixel_scale=pixel_scale) for number, pixels in enumerate(array))


def files_of(paths):
    """The files that paths, folders and globs lead to, resolved; arrays and what is gone are none."""
    from kerasgal.readers import images as readers

    found = set()
    for path in paths:
        if isinstance(path, np.ndarray):
            continue
        try:
            found |= {Path(file).resolve() for file in readers.find([path])}
        except DataError:
            found.add(Path(path).resolve())
    return found
