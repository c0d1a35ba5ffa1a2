"""Replicas and their devices: the only file that names tf.distribute strategies.

Other modules see a `Distribution`: the number of replicas, a scope to create variables in, and the
operations across replicas (sum tensors, average within groups, write variables).
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from system.errors import UsageError, UserError, first_line
from training.devices.tf_config import EXAMPLE, read_tf_config
from training.step.packed import pack, unpack

_GROUP_KEYS = 2**24  # outside the range that tf.distribute uses for its own collectives
# One key for each collective of each function that this process traces: TensorFlow stores a shape for each
# key, so a second function must not start at 1 again. All hosts trace the same functions in the same order.
_INSTANCE_KEYS = itertools.count(1)

CONNECT_SECONDS = 20.0  # to wait for a grpc:// address

STRATEGIES = ("auto", "tpu", "mirrored", "multi_worker", "cpu")


class DistributionError(UsageError):
    """Devices are missing, or cannot be used as requested."""


class Replica(NamedTuple):
    """The replica that runs a function: its number, and the token that orders its collectives."""

    id: Any  # int32 []
    order: Any  # a resource, or () where there is nothing to order


@dataclasses.dataclass(frozen=True)
class Distribution:
    """A set of replicas that train one model together."""

    strategy: tf.distribute.Strategy
    num_hosts: int = 1
    host_index: int = 0
    _tracing: Any = dataclasses.field(default_factory=threading.local, repr=False, compare=False)

    @property
    def num_replicas(self) -> int:
        """Replicas over all hosts."""
        return self.strategy.num_replicas_in_sync

    @property
    def replicas_per_host(self) -> int:
        """Replicas fed by one host."""
        return self.num_replicas // self.num_hosts

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints, curves and exports."""
        return self.host_index == 0

    @property
    def is_tpu(self) -> bool:
        """Whether the replicas are TPU cores."""
        return isinstance(self.strategy, tf.distribute.TPUStrategy)

    @property
    def description(self) -> str:
        """Number and kind of the devices, for the first line of a run's log."""
        kind = "TPU core" if self.is_tpu else "GPU" if _gpus() else "CPU"
        replicas = f"{self.num_replicas} {kind}{'s' if self.num_replicas > 1 else ''}"
        return replicas + (f" on {self.num_hosts} hosts" if self.num_hosts > 1 else "")

    def batches(
        self, make_dataset: Callable[[int, int], tf.data.Dataset], global_batch_size: int
    ) -> Any:
        """Distribute a dataset: each step of the result feeds every replica once.

        Args:
          make_dataset: called on each host with (host_index, num_hosts); yields that host's share of
            the global batch, that is `global_batch_size / num_hosts` examples at a time.
          global_batch_size: a multiple of the number of replicas.
        """
        per_replica = global_batch_size // self.num_replicas

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            dataset = make_dataset(context.input_pipeline_id, context.num_input_pipelines)
            replicas = self.num_replicas // context.num_input_pipelines
            return dataset if replicas == 1 else _split(dataset, replicas, per_replica)

        options = tf.distribute.InputOptions(experimental_fetch_to_device=self.num_replicas > 1)
        if self.num_replicas == 1:
            options = None
        return self.strategy.distribute_datasets_from_function(make, options)

    def local_value(self, value: Any) -> Any:
        """Return the first replica's value of one that is equal on all replicas."""
        return self.strategy.experimental_local_results(value)[0]

    @property
    def num_processes(self) -> int:
        """Processes that run this program together; a TPU slice has one."""
        return 1 if self.is_tpu else self.num_hosts

    def anywhere(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process; all processes must call this together."""
        if self.num_processes == 1:
            return flag
        return bool(self._count_flags(tf.constant(float(flag))) > 0.0)

    def wait_for_all(self) -> None:
        """Wait until every process has called this."""
        self.anywhere(False)

    @functools.cached_property
    def _count_flags(self) -> Callable[[tf.Tensor], tf.Tensor]:
        @tf.function
        def count(flag: tf.Tensor) -> tf.Tensor:
            flags = self.strategy.run(tf.identity, args=(flag,))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None)

        return count

    # A step is traced once, as a function of tensors and of the `Replica` that runs it, and then run on
    # every replica's device.

    def replica_spec(self) -> Replica:
        """Return the type of the `Replica` argument of a traced function."""
        order = tf.TensorSpec([], self._order.handle.dtype) if self._has_collectives else ()
        return Replica(tf.TensorSpec([], tf.int32), order)

    def this_replica(self) -> Replica:
        """Return the current replica; call inside strategy.run."""
        context = tf.distribute.get_replica_context()
        replica_id = tf.cast(context.replica_id_in_sync_group, tf.int32)
        order = (
            tf.identity(self._on_this_replica(self._order).handle) if self._has_collectives else ()
        )
        return Replica(replica_id, order)

    def on_each_replica(self, traced: tf.types.experimental.ConcreteFunction) -> Callable[..., Any]:
        """Return a callable for strategy.run that runs a graph, traced once, on the replica's device.

        Calling the function directly would place its operations on the first device, and a function
        traced under a strategy is traced again for each device; importing the graph is 20 times faster.
        """
        if not self._has_collectives:
            return traced
        graph = traced.graph.as_graph_def()
        inputs = [tensor.name for tensor in traced.inputs]
        outputs = [tensor.name for tensor in tf.nest.flatten(traced.structured_outputs)]

        def run(*args: Any) -> Any:
            tensors = tf.graph_util.import_graph_def(
                graph,
                input_map=dict(zip(inputs, tf.nest.flatten(args), strict=True)),
                return_elements=outputs,
                name="",
            )
            return tf.nest.pack_sequence_as(traced.structured_outputs, tensors)

        return run

    # Operations across replicas, for use in a function that each replica runs. The sums are plain
    # collective operations instead of calls to the strategy, so that such a function can be traced once
    # for all replicas. None of them is differentiable.

    @contextlib.contextmanager
    def as_replica(self, replica: Replica) -> Iterator[None]:
        """Trace the block as this replica."""
        self._tracing.replica = replica
        try:
            yield
        finally:
            del self._tracing.replica

    def replica_id(self) -> tf.Tensor:
        """Return the number of this replica: int32 []."""
        return self._tracing.replica.id

    def sum_over_replicas(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Sum float32 tensors over all replicas, in one collective."""
        if self.num_replicas == 1:
            return list(tensors)
        return unpack(self._group_sum(pack(tensors), self.num_replicas), tensors)

    def group_mean(self, group_size: int) -> Callable[[tf.Tensor], tf.Tensor] | None:
        """Return a function that averages a tensor over contiguous groups of replicas; None for size 1."""
        if group_size == 1:
            return None
        return lambda tensor: self._group_sum(tensor, group_size) / group_size

    def _group_sum(self, tensor: tf.Tensor, group_size: int) -> tf.Tensor:
        if self.is_tpu:
            everyone = np.arange(self.num_replicas).reshape(-1, group_size)
            return tf.raw_ops.CrossReplicaSum(input=tensor, group_assignment=everyone)
        group = self.replica_id() // group_size
        return tf.raw_ops.CollectiveReduceV2(
            input=tensor,
            group_size=group_size,
            group_key=_GROUP_KEYS + group_size * 2**12 + group,
            instance_key=next(_INSTANCE_KEYS),
            # Without it, automatic control dependencies make the replicas deadlock.
            ordering_token=[self._tracing.replica.order],
            merge_op="Add",
            final_op="Id",
        )

    def assign(self, variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]) -> None:
        """Write `values`, equal on all replicas, to `variables`."""
        if self.is_tpu:

            def write(strategy: tf.distribute.Strategy, *values: Any) -> None:
                for variable, value in zip(variables, values, strict=True):
                    strategy.extended.update(variable, lambda v, x: v.assign(x), args=(value,))

            tf.distribute.get_replica_context().merge_call(write, args=tuple(values))
            return
        # Each replica writes its own copy: a third of the tracing time of updates across replicas.
        for variable, value in zip(variables, values, strict=True):
            self._on_this_replica(variable).assign(value)

    @property
    def _has_collectives(self) -> bool:
        return self.num_replicas > 1 and not self.is_tpu

    @functools.cached_property
    def _order(self) -> tf.Variable:
        """A variable on every replica, through which its collective operations are ordered."""
        with self.strategy.scope():
            return tf.Variable(0.0, trainable=False)

    def _on_this_replica(self, variable: tf.Variable) -> tf.Variable:
        context = tf.distribute.get_replica_context()
        replica_id = int(tf.get_static_value(context.replica_id_in_sync_group))
        copies = self.strategy.experimental_local_results(variable)
        return copies[replica_id % self.replicas_per_host]


def batch_norm_group_size(group: str | int, num_replicas: int) -> int:
    """Return the number of replicas that share batch statistics.

    `"recipe"` is V1's rule: none up to N = 8 replicas, above that groups of max(8, N // 8). `"up_to_8"` is
    V2's, min(8, N), and `"up_to_32"` the detector's, min(32, N).

    Raises:
      DistributionError: `group` does not divide the number of replicas.
    """
    if group == "recipe":
        size = 1 if num_replicas <= 8 else max(8, num_replicas // 8)
    else:
        rules = {
            "none": 1,
            "all": num_replicas,
            "up_to_8": min(8, num_replicas),
            "up_to_32": min(32, num_replicas),
        }
        size = rules.get(group, group)  # type: ignore[arg-type]
    if num_replicas % int(size):
        raise DistributionError(
            f"batch_norm.group: groups of {size} do not divide {num_replicas} replicas; "
            "give a divisor, 'all' or 'none'"
        )
    return int(size)


def connect(
    strategy: str = "auto",
    *,
    tpu: str | None = None,
    tpu_zone: str | None = None,
    gcp_project: str | None = None,
) -> Distribution:
    """Find the devices and set up the replicas.

    Args:
      strategy: one of STRATEGIES; "auto" takes the TPU when `tpu` is given, all GPUs when there are any,
        else the CPU. "mirrored" without a GPU uses the logical CPU devices.
      tpu: "local" on a TPU VM, a node's name, or a grpc:// address.
      tpu_zone: of a named node.
      gcp_project: of a named node.

    Raises:
      DistributionError: the requested devices are missing or unreachable.
    """
    if strategy not in STRATEGIES:
        raise DistributionError(f"--strategy={strategy}: expected one of {', '.join(STRATEGIES)}")
    if strategy == "auto":
        strategy = "tpu" if tpu else "mirrored" if len(_gpus()) > 1 else "cpu"
    if strategy == "tpu":
        return _connect_tpu(tpu, tpu_zone, gcp_project)
    if tpu:
        raise DistributionError(f"--tpu={tpu} conflicts with --strategy={strategy}; drop one")
    if strategy == "multi_worker":
        return _connect_workers()
    if strategy == "mirrored":
        devices = _gpus() or tf.config.list_logical_devices("CPU")
        return Distribution(tf.distribute.MirroredStrategy([d.name for d in devices]))
    return Distribution(tf.distribute.get_strategy())  # one device: the GPU if there is one


def _connect_tpu(tpu: str | None, zone: str | None, project: str | None) -> Distribution:
    if not tpu:
        raise DistributionError(
            "--strategy=tpu needs --tpu: 'local' on a TPU VM, a node's name, or grpc://HOST:8470"
        )
    try:
        if tpu.startswith("grpc://"):
            _check_reachable(tpu)
        elif tpu != "local":
            check_node(tpu, zone, project)
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu, zone=zone, project=project
        )
        if tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except DistributionError:
        raise
    except Exception as error:  # the cloud's client libraries have error classes of their own
        raise DistributionError(f"--tpu={tpu}: {_tpu_advice(error)}") from error
    return Distribution(strategy, num_hosts=strategy.extended.num_hosts)


def check_node(name: str, zone: str | None, project: str | None) -> None:
    """Check with the cloud's API that a TPU node exists, is ready and healthy, and has this TensorFlow.

    TensorFlow itself would wait for a node that never answers, and its error for a node of another
    version names neither version.

    Raises:
      DistributionError: the node is missing, not ready, unhealthy or has another version.
    """
    from cloud_tpu_client import Client

    where = f"--tpu={name}: "
    try:
        client = Client(name, zone=zone, project=project)
    except OSError:  # no metadata server: not a machine of Google's cloud
        raise DistributionError(
            f"{where}outside Google's cloud a name needs --tpu_zone and --gcp_project too"
        ) from None
    try:
        node = client._fetch_cloud_tpu_metadata()
    except Exception as error:  # four libraries, each with its own classes
        raise DistributionError(where + _lookup_advice(str(error))) from error
    state, health = node.get("state"), node.get("health", "HEALTHY")
    describe = f"`gcloud compute tpus tpu-vm describe {name}`"
    if state in ("CREATING", "STARTING", "RESTARTING", "REPAIRING"):
        raise DistributionError(f"{where}the node is {state}; wait until {describe} shows READY")
    if state != "READY":
        raise DistributionError(
            f"{where}the node is {state}; create it again: tpu_scripts/delete.sh, then create.sh"
        )
    if health not in ("HEALTHY", "HEALTH_UNSPECIFIED"):
        raise DistributionError(
            f"{where}the node is {health} ({node.get('healthDescription', 'no reason given')}); "
            "wait for its repair, or delete it and create it again"
        )
    version = re.match(r"\D*(\d+\.\d+)", node.get("tensorflowVersion", ""))
    ours = ".".join(tf.__version__.split(".")[:2])
    if version and version[1] != ours:
        raise DistributionError(
            f"{where}the node runs TensorFlow {node['tensorflowVersion']} and this program "
            f"{tf.__version__}; create the node with {ours}, or run on the TPU VM with --tpu=local"
        )


def _lookup_advice(text: str) -> str:
    """Return cause and fix of a failed node lookup, from the text of the API client's error."""
    listing = "`gcloud compute tpus tpu-vm list --zone=ZONE`"
    if "HttpError 404" in text:
        return f"no node of this name in that zone and project; {listing} shows what is there"
    if "HttpError 403" in text or "HttpError 401" in text:
        return (
            "the TPU API denies access; enable it (`gcloud services enable tpu.googleapis.com`) and give "
            "the account the role roles/tpu.viewer"
        )
    if "Application Default Credentials" in text:
        return "no credentials; run `gcloud auth application-default login`"
    return (
        f"the TPU API can't be reached ({text.strip().splitlines()[0][-200:]}); check the network"
    )


def _check_reachable(address: str) -> None:
    """Raise OSError unless the address accepts connections; TensorFlow would wait for minutes."""
    host, _, port = address.removeprefix("grpc://").partition(":")
    try:
        socket.create_connection((host, int(port or 8470)), timeout=CONNECT_SECONDS).close()
    except ValueError:
        raise OSError(f"{port!r} is not a port") from None


def _tpu_advice(error: Exception) -> str:
    """Return cause and fix of a failure to reach a TPU, from the text of TensorFlow's error."""
    text = str(error)
    if "No OpKernel was registered" in text:
        return (
            "this TensorFlow has no TPU support; install requirements-tpu.txt in this environment "
            "(tensorflow-tpu instead of tensorflow)"
        )
    if "No matching devices found" in text:
        return (
            "no TPU chip on this machine; run on a TPU VM, or give the node's name with --tpu_zone"
        )
    return (
        f"no such TPU, or it can't be reached ({first_line(error)}); check the name, --tpu_zone and "
        "--gcp_project with `gcloud compute tpus tpu-vm list --zone=ZONE`"
    )


def _connect_workers() -> Distribution:
    workers, index = read_tf_config(os.environ.get("TF_CONFIG", ""))
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except ValueError as error:  # an incomplete task, such as one without type
        raise DistributionError(f"TF_CONFIG: {first_line(error)}; {EXAMPLE}") from error
    except tf.errors.OpError as error:
        if "gRPC server" not in str(error):
            raise UserError(
                f"cannot connect to the other workers of TF_CONFIG ({first_line(error)}); start all of "
                f"them, with the same addresses: {', '.join(workers)}"
            ) from error
        raise DistributionError(
            f"TF_CONFIG: worker {index} cannot listen at {workers[index]} ({first_line(error)}); expected an "
            "address of this host with a free port. Fix: end the process that uses the port, or change it "
            "in the TF_CONFIG of every worker"
        ) from error
    return Distribution(strategy, num_hosts=len(workers), host_index=index)


def _gpus() -> list[Any]:
    return tf.config.list_logical_devices("GPU")


def _split(dataset: tf.data.Dataset, replicas: int, per_replica: int) -> tf.data.Dataset:
    """Cut a host's batches into one batch for each of its replicas, in order."""

    def cut(batch: Any) -> Any:
        return tf.nest.map_structure(
            lambda t: tf.reshape(t, [replicas, per_replica, *t.shape[1:]]), batch
        )

    return dataset.map(cut, num_parallel_calls=2).unbatch()
