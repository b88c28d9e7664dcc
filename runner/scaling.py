"""A training step on several devices, on paper."""

LATENCY_SECONDS = 20e-6  # of a message
BYTES = 4  # of a gradient's entry


def step_seconds(compute: float, parameters: int, devices: int, bandwidth: float) -> float:
    """Seconds of a step whose work takes `compute` seconds on one device: each of n does an n-th of it, and a ring
    all-reduce sends 2 (n - 1) / n of the gradient's bytes at `bandwidth` bytes a second, in 2 (n - 1) messages. Nothing
    overlaps, so it is an upper bound where the backward pass hides some of the messages; that a part of a batch keeps a
    device as busy as the whole is assumed."""
    if devices == 1:
        return compute
    messages = 2 * (devices - 1)
    return compute / devices + messages / devices * BYTES * parameters / bandwidth + messages * LATENCY_SECONDS
