"""Use of ``accelerate``: dtype of products, gradients, their clipping, and optimizer steps."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState


def accelerator_for(device: torch.device, half: bool = False) -> Accelerator:
    """Accelerator of one training. ``half``: products in bfloat16 while weights and gradients stay
    float32 (mixed precision). The caller moves the model to its device.
    """
    reset_accelerator_state()
    return Accelerator(
        cpu=device.type == "cpu", mixed_precision="bf16" if half else "no", device_placement=False
    )


class Float16Accelerator(Accelerator):
    """Products in float16 on any device, with or without loss scaling; accelerate's own plugin
    rejects CPUs and always scales.
    """

    def __init__(self, device: torch.device, first_scale: float, loss_scaling: bool) -> None:
        reset_accelerator_state()
        super().__init__(cpu=device.type == "cpu", mixed_precision="no", device_placement=False)
        self.scaler = torch.amp.GradScaler(device.type, first_scale, enabled=loss_scaling)

    def autocast(self, autocast_handler: object = None) -> torch.autocast:
        return torch.autocast(self.device.type, torch.float16)

    def unscale_gradients(self, optimizer: object = None) -> None:
        for accelerated in self._optimizers:
            self.scaler.unscale_(accelerated.optimizer)


def reset_accelerator_state() -> None:
    """Reset accelerate's global state, which allows one device and dtype per process; the trainings
    of a worker differ in both.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
