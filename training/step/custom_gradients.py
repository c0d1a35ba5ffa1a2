"""Release what TensorFlow keeps of custom gradients, such as SiLU's, after their graphs are gone."""

from tensorflow.python.framework import ops

PREFIX = "CustomGradient-"  # of the names under which tf.custom_gradient registers


def registered_gradients() -> list[str]:
    """Return the names of the gradients that are registered for graphs traced so far."""
    return [name for name in ops.gradient_registry.list() if name.startswith(PREFIX)]


def release_all() -> None:
    """Forget the custom gradients of all graphs traced so far.

    TensorFlow registers the gradient of every SiLU that it traces under a name of its own, with the graph
    around it, and never removes it (8 MB for a training step of two blocks). Only taking the gradient of such
    a graph again would need it; a traced training step holds its gradients already.
    """
    for name in registered_gradients():
        del ops.gradient_registry._registry[name]
