"""What a worker knows of the others; that a dead one is noticed is tested with two trainings in test_training.py."""

import json

import pytest

from kerasgal import workers


@pytest.mark.parametrize("name, expected", [("UnavailableError", True), ("AbortedError", True),
                                            ("DeadlineExceededError", True), ("ResourceExhaustedError", False),
                                            ("InvalidArgumentError", False)])
def test_a_worker_out_of_reach_is_told_from_other_errors(name, expected):
    import tensorflow as tf

    assert workers.lost(getattr(tf.errors, name)(None, None, "said")) is expected
    assert not workers.lost(ValueError("said"))


def test_the_others_are_all_but_this_one(monkeypatch):
    cluster = {"chief": ["one:1"], "worker": ["two:2", "three:3"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}}))
    assert workers.others() == {"/job:chief/replica:0/task:0": "chief 0 (one:1)",
                                "/job:worker/replica:0/task:0": "worker 0 (two:2)"}
