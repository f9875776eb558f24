"""Networks compiled for training, where a compiler is to be had."""

import torch
from torch import Tensor

from ...errors import DeviceError


def check_compiler(device: torch.device) -> None:
    """Compile a line of arithmetic, to see whether it can be done on a device.

    Raises
    ------
    DeviceError
        It cannot: there is no C++ compiler for a CPU, or no Triton for a GPU.
    """
    try:
        torch.compile(_line)(torch.ones(8, device=device))
    except Exception as error:  # torch wraps what went wrong in exceptions of its own, none of them public
        lines = [line for line in str(error).splitlines() if line.strip()]
        why = lines[0].rstrip(".") if lines else type(error).__name__
        needs = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler"
        raise DeviceError(
            f"torch cannot compile for {device} here ({why}); it needs {needs}. Install it, or leave out training.compile."
        ) from error


def _line(values: Tensor) -> Tensor:
    return values.sin() * 2 + 1
