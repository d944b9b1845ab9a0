"""Seed-OSS: as Qwen 2; the norm before the feed-forward has another name."""

from engine.architectures.qwen2 import Qwen2


class SeedOSS(Qwen2):
    name = "seed_oss"
    ffn_norm = "post_attention_norm"
