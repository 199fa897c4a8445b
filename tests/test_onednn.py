import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("before, after", [(None, "1"), ("0", "0")])
def test_onednn_is_on_unless_the_user_says_otherwise(before, after):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    if before is not None:
        environment["TF_ENABLE_ONEDNN_OPTS"] = before
    program = "import os, sys, kerasgal; print(os.environ['TF_ENABLE_ONEDNN_OPTS'], 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [after, "False"]
