"""Write relatives of a model that share its vocabulary, to measure draft models where no family is at hand.

`--layers 0-7,28-29` keeps some layers only: a smaller model, whose guesses are poor without training.
`--stretch 3` puts two layers behind each one that add nothing to it: a model that computes three times as
much and writes the same texts, so that the original is a draft model that is nearly always right.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

NOTHING = -1  # a layer that adds nothing
SILENT = ("attn_output.weight", "ffn_down.weight")  # what a layer adds is a product with these


def write(source: Path, target: Path, layers: Sequence[int]) -> None:
    """A model of these layers of `source`, by their numbers; NOTHING: of the one before, silenced."""
    reader = gguf.GGUFReader(source)
    arch = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, arch)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = len(layers) if name == f"{arch}.block_count" else field.contents()
        kind = field.types[0]
        writer.add_key_value(name, value, kind, field.types[-1] if len(field.types) > 1 else None)
    originals = [0 if number == NOTHING and i == 0 else number for i, number in enumerate(layers)]
    for i in range(1, len(originals)):
        if originals[i] == NOTHING:
            originals[i] = originals[i - 1]
    for tensor in reader.tensors:
        match = re.fullmatch(r"blk\.(\d+)\.(.*)", tensor.name)
        if match is None:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        for i, (number, original) in enumerate(zip(layers, originals, strict=True)):
            if original == int(match[1]):
                silent = number == NOTHING and match[2] in SILENT
                data = np.zeros_like(tensor.data) if silent else tensor.data
                writer.add_tensor(f"blk.{i}.{match[2]}", data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def numbers(text: str) -> list[int]:
    """Of `0-7,28`."""
    ends = [part.partition("-") for part in text.split(",")]
    return [i for first, _, last in ends for i in range(int(first), int(last or first) + 1)]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("source", type=Path)
    p.add_argument("target", type=Path)
    kind = p.add_mutually_exclusive_group(required=True)
    kind.add_argument("--layers", type=numbers, metavar="N-N,N", help="keep these layers")
    kind.add_argument("--stretch", type=int, metavar="N", help="N times as many layers")
    args = p.parse_args()
    layers = args.layers
    if layers is None:
        reader = gguf.GGUFReader(args.source)
        arch = reader.fields["general.architecture"].contents()
        n = reader.fields[f"{arch}.block_count"].contents()
        layers = [i if k == 0 else NOTHING for i in range(n) for k in range(args.stretch)]
    write(args.source, args.target, layers)


if __name__ == "__main__":
    main()
