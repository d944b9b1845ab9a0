"""A loaded model as plain data, for operators and clients."""

from __future__ import annotations

from typing import Any

from engine.model.info import file_type
from engine.model.model import LoadedModel


def _describe_draft(draft: LoadedModel) -> dict[str, Any]:
    return {
        "path": str(draft.gguf.path),
        "n_layer": draft.hp.n_layer,
        "n_ctx": draft.n_ctx,
        "weight_bytes": draft.weights.nbytes,
        "kv_bytes": draft.cache.nbytes,
        "compute_bytes": {b.device.name: draft.sched.buffer_size(b) for b in draft.backends},
        "gpu_layers": draft.plan.gpu_layers,
        "placement": [d.name for d in draft.layer_devices],
    }


def describe(model: LoadedModel) -> dict[str, Any]:
    """What was loaded and where it is, as plain data."""
    return {
        "path": str(model.gguf.path),
        "architecture": model.gguf.arch,
        "file_type": file_type(model.gguf),
        "n_params": sum(info.n_elements for info in model.gguf.tensors.values()),
        "size_bytes": sum(info.nbytes for info in model.gguf.tensors.values()),
        "n_layer": model.hp.n_layer,
        "n_embd": model.hp.n_embd,
        "n_vocab": model.hp.n_vocab,
        "n_ctx": model.n_ctx,
        "n_ctx_train": model.hp.n_ctx_train,
        "generates": model.hp.causal,
        "pooling": model.hp.pooling,
        "normalize": model.hp.normalize,
        "n_scores": model.hp.n_scores,
        "sampling": model.sampling,
        "kv_cells": model.n_cells,
        "window_rows": 0 if model.pool.windows is None else model.pool.windows.n_rows,
        "kv_type": model.params.kv_type,
        "kv_bytes": model.cache.nbytes,
        "state_bytes": 0 if model.states is None else model.states.n_slots * model.states.nbytes,
        "state_slots": 0 if model.states is None else model.states.n_slots,
        "lora_bytes": sum(loaded.nbytes for loaded in model.lora),
        "lora": [
            {
                "id": i,
                "path": loaded.adapter.path,
                "name": loaded.adapter.name,
                "scale": parameters.scale,
                "alpha": loaded.adapter.alpha,
                "ranks": sorted({matrix.rank for matrix in loaded.adapter.matrices}),
                "task_name": loaded.adapter.task_name,
                "prompt_prefix": loaded.adapter.prompt_prefix,
            }
            for i, (loaded, parameters) in enumerate(zip(model.lora, model.params.lora_adapters, strict=True))
        ],
        "weight_bytes": model.weights.nbytes,
        "compute_bytes": {b.device.name: model.sched.buffer_size(b) for b in model.backends},
        "n_threads": model.n_threads,
        "parallel": model.params.parallel,
        "max_batch_tokens": model.max_batch_tokens,
        "drafts": model.hp.causal and model.hp.recurrence is None,  # see `Request.draft_max`
        "draft_model": None if model.draft is None else _describe_draft(model.draft),
        "placement": [d.name for d in model.layer_devices],
        "gpu_layers": model.plan.gpu_layers,
        "cpu_experts": model.plan.cpu_experts,
        "plan": model.plan.table(),
        "notes": list(model.plan.notes),
        "attention": model.attention,
    }
