"""llama.cpp's converter, as the pinned package has it: what public files are made with.

It decides names, keys and the order of rows, so that no reference is laid out by our own opinion. Only
its vocabulary step is replaced, by the small one of `layouts`.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "ggml"))
import fetch

FOLDERS = ("conversion", "convert_hf_to_gguf.py", "gguf-py/gguf", "LICENSE")
ROOT = fetch.pinned_package(tuple(f"{fetch.LLAMA}/{folder}" for folder in FOLDERS)) / fetch.LLAMA
sys.path[:0] = [str(ROOT), str(ROOT / "gguf-py")]  # it wants the gguf that it comes with
import conversion  # noqa: E402
import gguf  # noqa: E402
import layouts  # noqa: E402

Fix = Callable[[dict[str, Any], dict[str, np.ndarray]], None]  # (keys, tensors), changed in place


def convert(folder: Path, path: Path, name: str, fix: Fix | None) -> None:
    """The Hugging Face model in `folder` as a float32 GGUF; `fix` corrects what the converter gets wrong."""
    # It reads the configuration through transformers, which drops what today's classes do not know.
    hparams = conversion.ModelBase.load_hparams(folder, False)
    stated = json.loads((folder / "config.json").read_text())
    hparams |= stated
    if stated["model_type"] == "nomic_bert":
        hparams.setdefault("rotary_emb_scale_base", None)  # which transformers 5.24 leaves out
    if stated["model_type"] == "nemotron_h":  # its class states experts for models without any
        hparams = stated
    cls = conversion.get_model_class(hparams["architectures"][0])
    # Mistral 3's only chooses between two others.
    cls = getattr(cls, "Mistral4Model" if stated["model_type"] == "mistral4" else "Ministral3Model", cls)

    class Converted(cls):  # type: ignore[misc,valid-type]
        model_arch = cls.model_arch
        # Of layers that predict further tokens; random models have none, but `glm4moe-norms` gets one.
        no_mtp = stated["model_type"] != "glm4_moe"

        def set_vocab(self) -> None:
            if hparams["model_type"] in ("bert", "nomic_bert"):
                super().set_vocab()
            else:
                layouts.vocabulary(self.gguf_writer)

        @classmethod
        def filter_tensors(cls, item: tuple[str, Any]) -> tuple[str, Any] | None:
            # It leaves out the dense layer of BERT's head for ranking, which RoBERTa's has by another name.
            name, tensor = item
            if "SequenceClassification" in hparams["architectures"][0]:
                name = name.replace("bert.pooler.dense.", "classifier.dense.")
            return super().filter_tensors((name, tensor))

        def modify_tensors(self, *tensor: Any) -> Iterator[tuple[str, Any]]:
            if (
                cls.__name__ == "BaichuanModel" and "W_pack" not in tensor[1]
            ):  # its own calls itself without end
                yield from conversion.TextModel.modify_tensors(self, *tensor)
                return
            # StableLM's returns, from a generator, the norms that it has stacked: nobody would write them.
            lost = yield from super().modify_tensors(*tensor)
            yield from lost or ()

        def get_vocab_base_pre(self, tokenizer: Any) -> str:
            return "default"  # it knows tokenizers by hashes of what they do

    raw = path.with_suffix(".raw")
    model = Converted(folder, gguf.LlamaFileType.ALL_F32, raw, model_name=name, eager=True, hparams=hparams)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        model.write()
    rewrite(raw, path, fix)
    raw.unlink()


def rewrite(source: Path, target: Path, fix: Fix | None) -> None:
    """A copy without the descriptive keys that a tiny random model has no use for."""
    reader = gguf.GGUFReader(source)
    keys = {
        key: (entry.contents(), entry.types[0], entry.types[1] if len(entry.types) > 1 else None)
        for key, entry in reader.fields.items()
        if not key.startswith("GGUF.") and (not key.startswith("general.") or key in GENERAL)
    }
    tensors = {t.name: np.array(t.data, np.float32) for t in reader.tensors}
    if fix is not None:
        fix(keys, tensors)
    w = gguf.GGUFWriter(str(target), keys.pop("general.architecture")[0])
    for key, (value, kind, element) in keys.items():
        w.add_key_value(key, value, kind, element)
    for name, x in tensors.items():
        w.add_tensor(name, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


GENERAL = ("general.architecture", "general.name", "general.file_type")
