"""Opening a file of ours, whatever it is: a Simulation file, an image set, or what a run predicted."""

from kerasgal.errors import DataError
from kerasgal.files import CheckedFile, open_hdf5
from kerasgal.imageset import FORMAT as IMAGE_SET
from kerasgal.imageset import ImageSet
from kerasgal.simulation import FORMAT as SIMULATION
from kerasgal.simulation import Simulation


class PredictionFile(CheckedFile):
    """A file that `Prediction.save` wrote, opened for reading; arrays are HDF5 datasets.

    Attributes
    ----------
    header : dict
        What it says of itself: app, run, source, boxsize [Mpc/h], and notes, if there are any.

    Examples
    --------
    >>> import kerasgal as kg
    >>> with kg.open("haloes.h5") as haloes:            # doctest: +SKIP
    ...     print(haloes.header["app"], haloes["halo_id"].shape)
    protohalo (64, 64, 64)
    """

    def _check(self):
        if "app" not in self.file.attrs:
            raise DataError(f"{self.path} is not a prediction: it has no attribute app")

    @property
    def header(self):
        return {name: str(value) if isinstance(value, bytes | str) else value
                for name, value in self.file.attrs.items()}

    def __repr__(self):
        if not self.file:
            return f"<Prediction {self.path}, closed>"
        return f"<Prediction of {self.header['app']} {self.path}\n holding {', '.join(self.keys())}>"


def open(path):
    """Open a Simulation file, an image-set file or a prediction.

    Parameters
    ----------
    path : str or Path
        An HDF5 file that kerasgal wrote.

    Returns
    -------
    Simulation, ImageSet or PredictionFile
        By what is in the file, whatever its name. Each is a mapping of names to HDF5 datasets, which are read where
        they are sliced, and a context manager that closes the file.

    Raises
    ------
    DataError
        If the file is missing, damaged, or none of the three.

    Examples
    --------
    >>> import kerasgal as kg
    >>> kg.simulate("box.h5", particles=16, boxsize=12.5, seed=1).close()
    >>> with kg.open("box.h5") as box:
    ...     print(box.boxsize, box["halo_id"].shape)
    12.5 (16, 16, 16)
    """
    with open_hdf5(path) as file:
        made, app = file.attrs.get("format"), file.attrs.get("app")
    if made == SIMULATION:
        return Simulation(path, require=())
    if made == IMAGE_SET:
        return ImageSet(path)
    if app:
        return PredictionFile(path)
    raise DataError(f"{path} was not written by kerasgal: `kerasgal info` says what it is, `kerasgal convert` makes a "
                    "Simulation file of it")
