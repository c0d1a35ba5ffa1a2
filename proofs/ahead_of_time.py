"""Compile StableHLO with the real TPU compiler, without a chip.

Runs in its own process, which never imports TensorFlow: the first library to load libtpu owns it.
"""

import os
import time
from typing import Any

import numpy as np

from system.errors import first_line

# Set before libtpu is loaded: there is no metadata server, and another process may hold its lock.
os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")


def compile_module(module: str, topology: str) -> dict[str, Any]:
    """Compile for one chip of a topology such as "v5e:2x2".

    Returns:
      "compiles": whether it does. If not, "error": the first line of the compiler's error. If so,
      "argument_bytes", "temporary_bytes" and "output_bytes" in the chip's memory, "flops" and
      "bytes_accessed" of one step by the compiler's cost model, and "compile_seconds".
    """
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jax.experimental import topologies
    from jaxlib.mlir import ir

    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    context = mlir.make_ir_context()
    context.allow_unregistered_dialects = True  # TensorFlow's attributes
    with context:
        bytecode = mlir.module_to_bytecode(ir.Module.parse(module))
    options = xla_client.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[devices[0].id]]))
    start = time.perf_counter()
    try:
        executable = devices[0].client.compile(
            bytecode, xla_client.DeviceList((devices[0],)), options
        )
    except xla_client.XlaRuntimeError as error:
        return {"compiles": False, "error": first_line(error)}
    seconds = time.perf_counter() - start
    memory, cost = executable.get_compiled_memory_stats(), executable.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "compiles": True,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "compile_seconds": seconds,
    }
