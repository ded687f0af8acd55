"""A machine with a GPU that computes no values, for tests of device paths on a machine without one.

machine: `fake_cuda`, in which tensors on a GPU have shapes, types and devices, and nothing else
watch: where the host waits for the GPU, and the answers it gets
waits: the waits that are allowed, with their reasons
kernels: operations that torch's fake tensors do not have
backward: gradients, without the streams of a driver
"""

from tests.support.fake_cuda.machine import FakeCuda, fake_cuda
from tests.support.fake_cuda.waits import ALLOWED, EVERY_STEP, Wait
from tests.support.fake_cuda.watch import UnexpectedWait

__all__ = ["ALLOWED", "EVERY_STEP", "FakeCuda", "UnexpectedWait", "Wait", "fake_cuda"]
