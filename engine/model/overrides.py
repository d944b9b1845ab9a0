"""Tensors on another device than their layer: experts on the CPU, and tensors selected by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from engine.errors import ConfigError, DeviceError

EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_exps\.")


class Overrides:
    """`ModelParameters.tensor_overrides`, with the devices by their own names.

    Raises ConfigError for an invalid regular expression, DeviceError for a device that is not one of
    `devices`.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], devices: Collection[str]) -> None:
        by_name = {name.lower(): name for name in devices}
        self.rules: list[tuple[re.Pattern[str], str]] = []
        for pattern, device in pairs:
            if device.lower() not in by_name:
                raise DeviceError(
                    f"override_tensor: {device} is not one of the devices in use ({', '.join(devices)})"
                )
            try:
                self.rules.append((re.compile(pattern), by_name[device.lower()]))
            except re.error as error:
                raise ConfigError(
                    f"override_tensor: {pattern!r} is not a regular expression: {error}"
                ) from error

    def device_of(self, tensor: str) -> str | None:
        """The device of the first pattern that matches the tensor's name."""
        return next((device for pattern, device in self.rules if pattern.search(tensor)), None)

    def idle(self, tensors: Collection[str]) -> list[str]:
        """Notes about patterns that match none of these names."""
        return [
            f"override_tensor has no effect: {pattern.pattern!r} matches no tensor that can be moved"
            for pattern, _ in self.rules
            if not any(map(pattern.search, tensors))
        ]
