"""Names of what a network may see: channels of an initial density, which `kerasgal.channels` makes, and bands.

They stand by themselves, without NumPy: settings take them from here, and every --help reads those.
"""

from kerasgal.errors import SettingError

# How many numbers of a cell each channel is, and what.
CHANNELS = {"density": 1, "potential": 1, "displacement": 3, "tide": 2}
WORDS = {
    "density": "density contrast",
    "potential": "potential, whose Laplacian is the density contrast [(Mpc/h)^2]",
    "displacement": "first-order displacement, three components [Mpc/h]",
    "tide": "tidal invariants of the traceless tensor K: the root of K_ij K_ij, and the cube root of K_ij K_jk K_ki"}
VECTOR = "displacement"  # the channel that turns with a patch


def names_of(channels):
    """The channels of a text such as "density,tide".

    Parameters
    ----------
    channels : str
        Names of `CHANNELS` with commas between them, each once.

    Returns
    -------
    tuple of str

    Raises
    ------
    SettingError
        For another name, one that is given twice, or none.

    Examples
    --------
    >>> from kerasgal.channel_names import names_of
    >>> names_of("density,tide")
    ('density', 'tide')
    """
    names = tuple(name.strip() for name in channels.split(","))
    if not set(names) <= set(CHANNELS) or len(set(names)) < len(names):
        raise SettingError(f"channels={channels!r}: accepted are {', '.join(CHANNELS)}, each at most once, with commas "
                           "between them", value=channels, accepted=tuple(CHANNELS))
    return names


def count(names):
    """Numbers of a cell that channels are together.

    Parameters
    ----------
    names : sequence of str
        Of `CHANNELS`.

    Returns
    -------
    int

    Examples
    --------
    >>> from kerasgal.channel_names import count
    >>> count(["density", "displacement"])
    4
    """
    return sum(CHANNELS[name] for name in names)


def vector_of(names):
    """Place of the first of the three components of a vector among channels, None without one.

    Parameters
    ----------
    names : sequence of str
        Of `CHANNELS`.

    Returns
    -------
    int or None

    Examples
    --------
    >>> from kerasgal.channel_names import vector_of
    >>> vector_of(["density", "displacement", "tide"])
    1
    """
    names = list(names)
    return count(names[:names.index(VECTOR)]) if VECTOR in names else None


def band_names(text):
    """The names of bands, a tuple, in a text with commas between them.

    Parameters
    ----------
    text : str
        Such as "g,r,i"; empty where there is nothing to tell apart.

    Returns
    -------
    tuple of str

    Raises
    ------
    SettingError
        If a name is empty or stands there twice.

    Examples
    --------
    >>> from kerasgal.channel_names import band_names
    >>> band_names("g, r,i"), band_names("")
    (('g', 'r', 'i'), ())
    """
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    if not all(names) or len(set(names)) < len(names):
        raise SettingError(f"bands={text!r}: they must have names, each once, with commas between, such as g,r,i",
                           value=text)
    return names
