"""Pieces of work for tests/test_cluster.py: other processes import this."""

import logging
import os
import time

from kerasgal.errors import SettingError

log = logging.getLogger("kerasgal.test")


def squared(number):
    if number == 3:
        raise SettingError("number=3: accepted is any other", value=3, accepted=[1, 2])
    if number == 4:
        raise ZeroDivisionError("of our own making")
    log.warning(f"squaring {number}")
    return number**2


def who(_):
    time.sleep(0.2)
    return os.getpid()


def dying(place):
    """Kill the process the first time, or, without a place to note it, each time."""
    if place is None or not os.path.exists(place):
        if place:
            open(place, "w").close()
        os._exit(9)
    return "survived"
