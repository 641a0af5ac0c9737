"""Where tensors live."""

from __future__ import annotations

import torch


def pick_device(device: str = "auto") -> torch.device:
    """``"auto"`` is CUDA if there is one, else the CPU; anything else is torch's own name for a device."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
