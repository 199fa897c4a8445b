"""Making sets of images: made-up galaxies, and the smooth archetypes of galaxies."""

import itertools
import logging
from pathlib import Path

import numpy as np

from kerasgal import imageset
from kerasgal.apps.morph import archetypes, catalogues, mock
from kerasgal.channel_names import band_names
from kerasgal.errors import SettingError
from kerasgal.files import refuse_existing
from kerasgal.plotting import progress_bar
from kerasgal.simulation import check_suffix

TOGETHER = 100  # galaxies that are written at once

log = logging.getLogger(__name__)


def simulate(output, *, kind="real", number=1000, first=0, seed=0, bands="", overwrite=False):
    """Make images of galaxies up and write them as an image set, with their Sersic parameters.

    Bulges, discs, spiral arms, bars and clumps, with the pixels, seeing, sky and noise of the SDSS in r. kind: "real",
    with all structure; "fine" or "smooth", two simulated suites, with ever less of it. first: index of the first:
    galaxy i of a seed is the same in every kind. bands: several of g, r and i, with commas between, or r alone.
    """
    names = band_names(bands)
    source = f"kerasgal morph simulate: {kind}, seed {seed}, galaxies {first} to {first + number - 1}; made up"
    write(output, mock.galaxies(number, kind, seed=seed, first=first, bands=names), number, source, overwrite,
          mock.ABOUT | {"bands": ",".join(names) or None})


def make_archetypes(output, *, table=None, fit=(), number=None, distributions=None, psf=None, fwhm=1.32, skies=(),
                    size=128, pixel_scale=None, zero_point=None, seed=0, sky=None, masks=None, extension=None,
                    unit=None, flux_scale=None, bands="", overwrite=False):
    """Make the smooth Sersic archetypes of galaxies and write them as an image set; returns how many.

    table: path of Sersic parameters, or of the image set that has them; fit: paths of images to whose galaxies a
    profile is fitted; number: of galaxies whose parameters are drawn, from `distributions`, {column: path of its
    cumulative distribution}: one of the three. psf: path of a FITS image, or fwhm: of a Moffat profile [arcsec]. skies:
    paths of images whose borders are the sky. pixel_scale [arcsec], zero_point [mag]: of the camera, to which images
    that say a zero point of their own are brought. sky, masks, extension, unit, flux_scale: of the images to fit and of
    skies; see `catalogues.fitted`. bands: names of several, with commas between, in which the galaxies of the table are
    shown, whose columns NAME_BAND are of one band, NAME of all; by default those of the image set. Point spread
    function, camera and sky are those of all bands.
    """
    if sum((table is not None, bool(fit), number is not None)) != 1:
        raise SettingError("give one of `table`, `fit` and `number`")
    if distributions and number is None:
        raise SettingError("`distribution` needs `number`")
    if sky is not None and not fit:
        raise SettingError("`sky` is that of the images of `fit`")
    names = band_names(bands)
    if names and not table:
        raise SettingError(f"bands={bands}: they are those of `table`; of `fit` and `number` make each band's "
                           "archetypes, with a seed of its own, and join them", value=bands)
    refuse_existing(check_suffix(output), overwrite)
    changed = {"pixel_scale": pixel_scale, "zero_point": zero_point}
    camera = archetypes.Camera(**{name: value for name, value in changed.items() if value is not None})
    point = archetypes.read_psf(psf, camera) if psf else archetypes.moffat_psf(fwhm, camera)
    reading = {"masks": masks, "extension": extension, "unit": unit, "flux_scale": flux_scale}
    unused = [name for name, value in reading.items() if value is not None]
    if unused and not fit and not skies:
        raise SettingError(f"`{unused[0]}` says how the images of `fit` and `skies` are read: there are none")
    rng = np.random.default_rng(seed)
    in_bands = catalogues.parameters_of_bands(table, camera, names) if table else {}
    if len(in_bands) > 1:
        if skies:
            raise SettingError(f"`skies`: they are images of one band, and {table} has {', '.join(in_bands)}: make "
                               "each band's archetypes and join them")
        for chosen in in_bands.values():
            _say_note(chosen)
        count = len(next(iter(in_bands.values()))["n"])
        write(output, archetypes.archetypes_of_bands(in_bands, camera, point, size, seed), count,
              "kerasgal morph archetypes", overwrite,
              camera.about(None if psf else fwhm) | {"bands": ",".join(in_bands)})
        return count
    if in_bands:
        chosen, = in_bands.values()
    elif table:
        chosen = catalogues.parameters_of(table, camera)
    elif fit:
        chosen = catalogues.fitted(list(fit), point, camera, sky=sky, **reading)
    else:
        drawn = archetypes.draw_parameters(number, rng, distributions or {})
        chosen = archetypes.sersic_parameters(drawn, camera, "the distributions")
    _say_note(chosen)
    behind = catalogues.skies(list(skies), size, rng, camera=camera, **reading) if skies else None
    count = len(chosen["n"])
    write(output, archetypes.archetypes(chosen, camera, point, size=size, seed=seed, skies=behind), count,
          "kerasgal morph archetypes", overwrite,
          camera.about(None if psf else fwhm) | {"bands": ",".join(names) or None})
    return count


def _say_note(chosen):
    """Log what `archetypes.note_on_n` has to say of parameters."""
    note = archetypes.note_on_n(chosen)
    if note:
        log.info(note)


def write(output, galaxies, number, source, overwrite, about):
    """Write galaxies, dictionaries of image, id and columns, as an image set while they are made.

    about: what `imageset.writing` takes of flux, pixels and seeing.
    """
    output = Path(check_suffix(output))
    refuse_existing(output, overwrite)
    galaxies = iter(galaxies)
    with progress_bar() as progress, imageset.writing(output, source, overwrite, **about) as writer:
        task = progress.add_task("galaxies", total=number)
        while group := list(itertools.islice(galaxies, TOGETHER)):
            columns = {name: np.array([galaxy[name] for galaxy in group]) for name in group[0]}
            writer.append(columns.pop("id").astype(str), columns.pop("image"), table=columns)
            progress.advance(task, len(group))


def write_samples(run, output, *, on="real", number=16, seed=0, overwrite=False):
    """Draw images from a trained network and write them as counts, and a contact sheet beside; returns its path."""
    from kerasgal.apps.morph import figures
    from kerasgal.plotting import save

    output = check_suffix(output)
    sheet = output.with_suffix(".png")
    for path in (output, sheet):
        refuse_existing(path, overwrite)
    drawn = run.sample(number, on=on, seed=seed)
    imageset.write(output, id=[f"sample_{index}" for index in range(number)],
                   image=np.sinh(drawn) * run.config.softening,  # the stretch of the preparation is undone
                   source=f"kerasgal morph sample: {run.folder / on}, seed {seed}", overwrite=overwrite,
                   unit=run.unit, zero_point=run.zero_point, bands=run.config.bands or None)
    save(figures.sheet(drawn), sheet)
    return sheet
