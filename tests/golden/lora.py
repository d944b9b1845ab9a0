"""Makes `lora/`: two PEFT adapters for the model in hf/llama, and what PEFT computes with them.

    python -m venv hf && hf/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    hf/bin/python tests/golden/lora.py

The adapters differ in all that a converter and a graph must get right: ranks, alphas, which matrices they
adapt, rsLoRA's scale, a rank of one matrix of its own, the embedding and the head.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
BASE, OUT = HERE / "hf" / "llama", HERE / "lora"
ADAPTERS = {
    "attention": LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
    "everywhere": LoraConfig(
        r=8,
        lora_alpha=5,
        use_rslora=True,
        target_modules=["q_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"],
        rank_pattern={"down_proj": 3},
        alpha_pattern={"up_proj": 9},
    ),
}
# The scales of both adapters, by name of the reference.
SETS = {
    "none": (0.0, 0.0),
    "attention": (1.0, 0.0),
    "everywhere": (0.0, 1.0),
    "both": (1.0, 1.0),
    "scaled": (0.5, -1.5),
}


@torch.no_grad()
def save_adapter(name: str, config: LoraConfig, seed: int) -> None:
    """An adapter with random matrices; PEFT's own are zero before any training."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), config)
    torch.manual_seed(seed)
    for parameter_name, p in model.named_parameters():
        if "lora_" in parameter_name:
            p.normal_(0, 0.25 if "_B" in parameter_name else 0.5 / p.shape[-1] ** 0.5 * 2)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text()) | {"base_model_name_or_path": "example/llama"}
    settings["target_modules"] = sorted(settings["target_modules"])
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    for seed, (name, config) in enumerate(ADAPTERS.items()):
        save_adapter(name, config, seed)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(model, OUT / "attention", adapter_name="attention")
    adapted.load_adapter(OUT / "everywhere", adapter_name="everywhere")
    adapted.base_model.set_adapter(list(ADAPTERS))
    adapted.eval()
    with np.load(HERE / "llama.npz") as llama:
        prompt, positions = llama["prompt"], llama["positions"]
    full = {layer: dict(layer.scaling) for layer in adapted.modules() if isinstance(layer, LoraLayer)}
    references = {}
    for name, scales in SETS.items():
        for layer, whole in full.items():
            for adapter, scale in zip(ADAPTERS, scales, strict=True):
                if adapter in whole:
                    layer.scaling[adapter] = whole[adapter] * scale
        logits = adapted(torch.tensor([prompt.tolist()]), use_cache=False).logits[0].numpy()
        references[name] = logits[positions].astype(np.float32)
        print(f"{name:12} deviation {references[name].std():.2f}")
    np.savez_compressed(OUT / "logits.npz", prompt=prompt, positions=positions, **references)


if __name__ == "__main__":
    main()
