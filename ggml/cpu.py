"""The features of this machine's CPU as ggml's build options."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

# ggml option (without GGML_) -> the flags of /proc/cpuinfo that it needs
# Not AMX: some hypervisors announce it without preserving its tiles, and ggml's kernels end in SIGILL.
X86 = {
    "SSE42": "sse4_2",
    "AVX": "avx",
    "AVX2": "avx2",
    "BMI2": "bmi2",
    "FMA": "fma",
    "F16C": "f16c",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f avx512cd avx512vl avx512dq avx512bw",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
}
# -march extension -> the feature of /proc/cpuinfo that it needs
ARM = {"dotprod": "asimddp", "fp16": "asimdhp", "i8mm": "i8mm", "sve": "sve"}


def flags(cpuinfo: str) -> set[str]:
    """The features that all processors of the machine have."""
    lines = [
        set(line.partition(":")[2].split())
        for line in cpuinfo.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
    ]
    return set.intersection(*lines) if lines else set()


def x86_features(present: set[str]) -> list[str]:
    features = [name for name, needs in X86.items() if present >= set(needs.split())]
    if "AVX512" not in features:  # its extensions depend on it
        features = [name for name in features if not name.startswith("AVX512")]
    return features


def arm_arch(present: set[str]) -> str:
    extensions = [name for name, needs in ARM.items() if needs in present]
    return "+".join(["armv8.2-a" if extensions else "armv8-a", *extensions])


def cmake_options() -> dict[str, str]:
    """Options that build ggml for exactly this CPU; {} if ggml's defaults are the best choice."""
    machine = platform.machine().lower()
    if sys.platform == "darwin" and machine == "arm64":  # the features of the oldest Apple CPU
        return {"GGML_CPU_ARM_ARCH": arm_arch({"asimddp", "asimdhp"})}
    if not sys.platform.startswith("linux"):
        return {}
    present = flags(Path("/proc/cpuinfo").read_text(errors="replace"))
    if machine in ("x86_64", "amd64", "i686") and present:
        return {"GGSERVE_CPU": ";".join(x86_features(present)) or "none"}
    if machine in ("aarch64", "arm64") and present:
        return {"GGML_CPU_ARM_ARCH": arm_arch(present)}
    return {}
