"""Decode training images on other machines, through tf.data service.

  python -m input_pipeline.data_service dispatcher --port=5050
  python -m input_pipeline.data_service worker --dispatcher=HOST:5050      (on every helper)

and data.service=grpc://HOST:5050 for the training run. The service changes speed only: each step's
batch is a function of its number, so workers receive numbers, and the batches are put back into
order as they arrive. A batch that is lost with its worker, or that is late, is made on the training
host.
"""

import errno
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import tensorflow as tf

from input_pipeline.errors import DatasetError
from system.command import ArgumentTypeError, Namespace, Parser, command
from system.console import log
from system.errors import UserError, first_line
from system.memory import limit_malloc_arenas

Batch = Mapping[str, tf.Tensor]

REORDER_MIB = 2048.0  # batches that wait for an earlier one
MOST_WAITING = 256  # and never more batches than this, however small
STALL_SECONDS = 60.0  # without a batch from any worker; then one is made here
WORKER_TIMEOUT_SECONDS = 10.0  # without a heartbeat; then the dispatcher drops a worker
CONNECT_SECONDS = 10.0
RELEASE_SECONDS = 10.0  # how long the end of training waits for the service to release its iterator


def from_service(
    make_batches: Callable[[int], tf.data.Dataset],
    *,
    address: str,
    start_step: int,
    reorder_mib: float = REORDER_MIB,
    stall_seconds: float = STALL_SECONDS,
) -> tf.data.Dataset:
    """Return the batches from `start_step` on, made by the workers of a service, in order.

    Args:
      make_batches: returns the endless batches from a step on, with "step": int64 [b] among their
        parts. They are built on Dataset.range, whose numbers the workers receive, and a batch must
        depend on its step alone.
      address: grpc://HOST:PORT of the dispatcher.
      start_step: number of the first batch.
      reorder_mib: MiB of batches that may wait for an earlier one before that is made locally.
      stall_seconds: how long to wait for any batch at all before one is made locally.

    Returns:
      Dataset equal to make_batches(start_step).

    Raises:
      DatasetError: no service answers at `address`.
    """
    check_reachable(address)
    batches = make_batches(start_step)
    parts = batches.element_spec.values()
    batch_bytes = sum(part.dtype.size * part.shape.num_elements() for part in parts)
    most_waiting = min(max(8, int(reorder_mib * (1 << 20) / batch_bytes)), MOST_WAITING)
    service = tf.data.experimental.service
    remote = batches.apply(
        service.distribute(service.ShardingPolicy.DYNAMIC, address, compression=None)
    )

    def make_locally(step: int) -> Batch:
        return next(iter(make_batches(step)))

    def generate_batches() -> Iterator[Batch]:
        with _Arrivals((int(batch["step"][0]), batch) for batch in remote) as next_arrival:
            yield from in_order(
                lambda: next_arrival(stall_seconds), make_locally, start_step, most_waiting
            )

    return tf.data.Dataset.from_generator(generate_batches, output_signature=batches.element_spec)


def in_order(
    next_arrival: Callable[[], tuple[int, Batch] | None],
    make_locally: Callable[[int], Batch],
    start_step: int,
    most_waiting: int,
) -> Iterator[Batch]:
    """Yield batches in the order of their steps, without gaps or duplicates.

    Args:
      next_arrival: returns the next (step, batch) to arrive, or None after a timeout.
      make_locally: makes the batch of a step that did not arrive.
      start_step: the first step.
      most_waiting: batches held back for an earlier one; at this many, that one is made locally.
    """
    step = start_step
    waiting: dict[int, Batch] = {}
    while True:
        if step in waiting:
            yield waiting.pop(step)
            step += 1
            continue
        arrival = next_arrival() if len(waiting) < most_waiting else None
        if arrival is None:
            log(f"data service: step {step} did not arrive; making it on this host")
            yield make_locally(step)
            step += 1
        elif arrival[0] >= step:
            waiting[arrival[0]] = arrival[1]


class _Arrivals:
    """Read an iterator in a thread of its own, so that waiting for it can time out."""

    def __init__(self, source: Iterator[tuple[int, Batch]]) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=2)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True)

    def __enter__(self) -> Callable[[float], tuple[int, Batch] | None]:
        self._thread.start()
        return self._next

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        # Release the service's iterator while the service still runs.
        self._thread.join(RELEASE_SECONDS)

    def _next(self, timeout_seconds: float) -> tuple[int, Batch] | None:
        try:
            arrival = self._queue.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if isinstance(arrival, BaseException):
            raise arrival
        return arrival

    def _run(self, source: Iterator[tuple[int, Batch]]) -> None:
        try:
            for arrival in source:
                self._put(arrival)
                if self._stopped.is_set():
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, arrival: object) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(arrival, timeout=0.5)
            except queue.Full:
                continue
            return


def check_reachable(address: str) -> None:
    """Raise DatasetError when `address` is not grpc://HOST:PORT or nothing answers there."""
    parts = urlparse(address)
    if parts.scheme != "grpc" or not parts.hostname or not parts.port:
        raise DatasetError(f"data.service: invalid address {address!r}; expected grpc://HOST:PORT")
    try:
        socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
    except OSError as error:
        raise DatasetError(
            f"data.service: cannot connect to {address} ({error}); start it with "
            "python -m input_pipeline.data_service dispatcher"
        ) from None


# -- the command --------------------------------------------------------------------------------


@command("input_pipeline.data_service")
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; print one line when ready. Return the exit status."""
    flags = _parser().parse_args(argv)
    limit_malloc_arenas()
    service = tf.data.experimental.service
    try:
        if flags.role == "dispatcher":
            config = service.DispatcherConfig(
                port=flags.port, worker_timeout_ms=int(WORKER_TIMEOUT_SECONDS * 1000)
            )
            server = service.DispatchServer(config)
            port = server.target.rpartition(":")[2]
            print(f"dispatcher ready: grpc://{socket.gethostname()}:{port}", flush=True)
        else:
            check_reachable(f"grpc://{flags.dispatcher}")
            server = service.WorkerServer(_worker_config(flags))
            print(f"worker ready, serving {flags.dispatcher}", flush=True)
    except (tf.errors.OpError, RuntimeError) as error:  # a port in use is a RuntimeError
        raise UserError(_port_problem(flags.port) or f"cannot serve: {first_line(error)}") from None
    server.join()
    return 0


def _port_problem(port: int) -> str:
    """Describe why a server cannot listen on a port; "" if it can."""
    try:
        with socket.socket() as probe:
            probe.bind(("", port))
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        reason = "is in use" if in_use else f"cannot be used ({error.strerror})"
        return f"port {port} {reason}; give another --port"
    return ""


def _worker_config(flags: Namespace) -> Any:
    port = flags.port or _free_port()
    host = flags.host or socket.gethostname()
    return tf.data.experimental.service.WorkerConfig(
        dispatcher_address=flags.dispatcher,
        worker_address=f"{host}:{port}",
        port=port,
        heartbeat_interval_ms=1000,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _parser() -> Parser:
    parser = Parser("input_pipeline.data_service", __doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    dispatcher = roles.add_parser("dispatcher", help="one per training run")
    dispatcher.add_argument("--port", type=_port, default=5050, help="(default %(default)s)")
    worker = roles.add_parser("worker", help="one per helping machine")
    worker.add_argument("--dispatcher", required=True, help="HOST:PORT")
    worker.add_argument(
        "--port", type=_port, default=0, help="port to serve on (default: any free one)"
    )
    worker.add_argument("--host", help="name under which other machines reach this one")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port; expected 0 (any free one) to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
