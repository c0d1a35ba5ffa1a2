"""Groups of replicas, and what a user reads who asks for devices that are not there."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from system.errors import UsageError, UserError
from tests import runs
from training.devices.distribution import (
    STRATEGIES,
    DistributionError,
    batch_norm_group_size,
    connect,
)

ROOT = Path(__file__).resolve().parents[3]


def test_the_recipe_shares_no_statistics_up_to_eight_replicas():
    assert [batch_norm_group_size("recipe", n) for n in (1, 2, 4, 8)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("replicas", "group"),
    [(16, 8), (32, 8), (64, 8), (128, 16), (256, 32), (512, 64), (1024, 128), (2048, 256)],
)
def test_above_eight_the_recipe_shares_in_groups_of_an_eighth_but_at_least_eight(replicas, group):
    assert batch_norm_group_size("recipe", replicas) == group


@pytest.mark.parametrize(("rule", "largest"), [("up_to_8", 8), ("up_to_32", 32)])
def test_rules_with_a_largest_group_share_among_all_replicas_below_it(rule, largest):
    found = [batch_norm_group_size(rule, n) for n in (1, 4, largest, 128)]
    assert found == [1, 4, largest, largest]


def test_groups_may_be_given():
    assert batch_norm_group_size("all", 6) == 6
    assert batch_norm_group_size("none", 6) == 1
    assert batch_norm_group_size(3, 6) == 3


@pytest.mark.parametrize(("group", "replicas"), [(4, 6), (16, 8), ("recipe", 12)])
def test_groups_that_do_not_divide_the_replicas_are_refused(group, replicas):
    with pytest.raises(
        DistributionError, match=rf"^batch_norm\.group: .* divide {replicas} replicas"
    ):
        batch_norm_group_size(group, replicas)


def test_one_cpu_is_one_replica():
    distribution = connect("cpu")
    assert (distribution.num_replicas, distribution.num_hosts) == (1, 1)
    assert distribution.is_chief
    assert not distribution.is_tpu
    assert distribution.description == "1 CPU"


def test_auto_without_accelerators_is_the_cpu():
    assert connect().num_replicas == 1


def test_mirrored_takes_every_logical_cpu():
    distribution = connect("mirrored")
    assert (distribution.num_replicas, distribution.replicas_per_host) == (4, 4)
    assert distribution.description == "4 CPUs"


def refused(*args, **kwargs):
    with pytest.raises(UsageError) as error:
        connect(*args, **kwargs)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    message = refused("horovod")
    assert message.startswith("--strategy=horovod: ")
    assert all(name in message for name in STRATEGIES)


def test_a_tpu_strategy_asks_which_tpu():
    assert refused("tpu").startswith("--strategy=tpu needs --tpu")


def test_a_tpu_and_another_strategy_contradict_each_other():
    assert refused("cpu", tpu="local").startswith("--tpu=local conflicts with --strategy=cpu")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (None, "--strategy=multi_worker needs TF_CONFIG, which is not set"),
        ("", "--strategy=multi_worker needs TF_CONFIG, which is not set"),
        ("{", "TF_CONFIG is not JSON (Expecting property name"),
        ("[]", "TF_CONFIG: cluster.worker is None"),
        ('{"cluster": {}}', "TF_CONFIG: cluster.worker is None"),
        (
            '{"cluster": {"worker": "a:1"}, "task": {"index": 0}}',
            "TF_CONFIG: cluster.worker is 'a:1'",
        ),
        ('{"cluster": {"worker": ["a:1"]}, "task": {}}', "TF_CONFIG: task.index is None"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"index": 0}}',
            "TF_CONFIG: When `cluster_spec`",
        ),
    ],
)
def test_workers_need_to_know_one_another(config, problem, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    message = refused("multi_worker")
    assert message.startswith(problem)
    example = message.split("for example TF_CONFIG=", 1)[1].strip("'")
    assert set(json.loads(example)) == {"cluster", "task"}


def test_a_worker_that_is_not_in_the_list_is_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 2}}')
    assert refused("multi_worker").startswith("TF_CONFIG: task.index is 2; expected 0 to 1")


def test_workers_that_do_not_answer_are_not_called_a_port_in_use(monkeypatch):
    def wait() -> None:
        raise tf.errors.DeadlineExceededError(None, None, "Barrier timed out")

    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 0}}')
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", wait)
    with pytest.raises(UserError) as error:
        connect("multi_worker")
    assert error.value.status == 1
    assert str(error.value) == (
        "cannot connect to the other workers of TF_CONFIG (Barrier timed out); start all of them, with the "
        "same addresses: a:1, b:1"
    )


# A failed search for a TPU leaves TensorFlow's runtime in a state of its own: in a fresh process.
CONNECT = """
from training.devices.distribution import DistributionError, connect
try:
    connect("auto", tpu="local")
except DistributionError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_machine_without_tpu_is_one_line_with_advice():
    command = [sys.executable, "-c", CONNECT]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=runs.TIMEOUT_SECONDS, check=False
    )
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 1, done
    assert lines[0].startswith("--tpu=local: this TensorFlow has no TPU support; install")


@pytest.mark.slow
def test_a_port_in_use_is_one_line_with_the_address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = {"cluster": {"worker": [address]}, "task": {"type": "worker", "index": 0}}
        done = subprocess.run(
            [sys.executable, "main.py", "--strategy=multi_worker", f"--model_dir={tmp_path}"],
            cwd=ROOT,
            env=os.environ | {"TF_CONFIG": json.dumps(config)},
            capture_output=True,
            text=True,
            timeout=runs.TIMEOUT_SECONDS,
            check=False,
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"main.py: TF_CONFIG: worker 0 cannot listen at {address} (")
