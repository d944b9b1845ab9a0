"""An engine process whose steps take a fixed time: `python -m bench.slow_engine --step-ms 50 … --fd N`.

The rest of a step's time the processor is free, as while a GPU computes. So a machine with two cores can show
how replicas add up.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from server.worker.process import main as engine_process


class SlowScheduler:
    """A scheduler whose steps take at least `step_s`."""

    def __init__(self, scheduler: Any, step_s: float) -> None:
        self._scheduler, self._step_s = scheduler, step_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def step(self) -> Any:
        began = time.monotonic()
        outputs = self._scheduler.step()
        if outputs:
            time.sleep(max(began + self._step_s - time.monotonic(), 0.0))
        return outputs


class SlowModel:
    def __init__(self, model: Any, step_s: float) -> None:
        self._model, self._step_s = model, step_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def scheduler(self) -> SlowScheduler:
        return SlowScheduler(self._model.scheduler(), self._step_s)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-ms", type=float, required=True)
    options, rest = parser.parse_known_args()

    def load(path: str, params: Any, progress: Any) -> Any:
        return SlowModel(engine_process.load_model(path, params, progress), options.step_ms / 1000)

    return engine_process.main(rest, load=load)


if __name__ == "__main__":
    os._exit(main())
