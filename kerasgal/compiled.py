"""How loops are compiled by Numba, and what several of them call.

To be imported inside functions: Numba takes a moment to start.
"""

import numba


def compiled(function):
    """Compile a function when it is first called, and keep the code for later processes.

    It lets go of Python's lock, and a division by zero is NumPy's. Numba keeps the code in `__pycache__` beside the
    function's file, or in the user's cache where that cannot be written. Where neither can be, each process compiles
    anew.
    """
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(function)


@compiled
def root(up, member):
    """The one that stands for a member's set (union-find, with the ways halved)."""
    while up[member] != member:
        up[member] = up[up[member]]
        member = up[member]
    return member
