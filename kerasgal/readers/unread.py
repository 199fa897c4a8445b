"""Formats that are known and not read: what the error says of them, and which tool makes one that is read."""

import re

from kerasgal.readers import base

BY_OTHERS = "yt and pynbody read it; put its density on a grid into a .npy file and give `density`"


def _folder(*patterns):
    """A function that is true for a folder with a file for each of the patterns."""
    return lambda seen: seen.folder is not None and all(
        any(re.fullmatch(pattern, name) for name in seen.folder) for pattern in patterns)


base.register(name="a folder of GRAFIC initial conditions", recognises=_folder(r"ic_(vel|pos|delta)[a-z]*"),
              instead="MUSIC and genetIC write the same initial conditions as Gadget or TIPSY")
base.register(name="a folder of Abacus", recognises=_folder(r"header|.*\.asdf", r".*\.asdf"),
              instead="abacusutils reads it (abacusnbody.data.read_abacus); put its density on a grid into a .npy file "
                      "and give `density`")
base.register(name="a folder of MP-Gadget with its groups", recognises=_folder("FOFGroups", "Header"),
              instead="give the snapshot's own folder (PART_NNN), and its haloes as a table of particle ID and halo ID")
base.register(name="a folder of RAMSES", recognises=_folder(r"info_\d+\.txt"), instead=BY_OTHERS)
base.register(name="a folder of NChilada", recognises=_folder(r"description\.xml"), instead=BY_OTHERS)
base.register(name="a plotfile of AMReX (Nyx, Castro)", recognises=_folder("Header", r"Level_\d+"),
              instead="yt reads it; put its density on a grid (covering_grid) into a .npy file and give `density`")
base.register(name="a folder of a snapshot in several files", recognises=_folder(r".*\.\d+(\.hdf5|\.h5)?"),
              instead="give one of the files in it, or their name without the number")
base.register(name="an ASDF file", recognises=lambda seen: seen.start.startswith(b"#ASDF"),
              instead="of Abacus, abacusutils reads it; put its density on a grid into a .npy file and give `density`")
base.register(name="Rockstar's binary table", recognises=lambda seen: (
    seen.start[:8] in (bytes.fromhex("d0d0c0c0cedadefa"), bytes.fromhex("fadedacec0c0d0d0"))),
              instead="give its out_N.list, the same haloes in text, which Rockstar writes beside it")
