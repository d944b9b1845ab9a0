"""The peer: llama.cpp's HTTP server as the PyPI wheel `xllamacpp` carries it, in this process.

It listens as soon as the model is loaded and warmed up, until SIGTERM. Run by `bench.run`; by
hand: `python bench/peer.py --model m.gguf --port 8081`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context-size", type=int, default=2048, help="tokens of one session")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--flash-attn", choices=["auto", "on", "off"], default="auto")
    parser.add_argument("--kv-unified", action="store_true", help="one pool of cells for all slots")
    parser.add_argument("--gpu", action="store_true", help="all layers on the devices that it finds")
    parser.add_argument("--cache-ram", type=int, default=0, help="MiB for states of earlier prompts")
    parser.add_argument("--info", action="store_true", help="print version and CPU features, then go on")
    args = parser.parse_args()

    import xllamacpp

    if args.info:
        print(f"xllamacpp {xllamacpp.__version__}", xllamacpp.get_system_info(), file=sys.stderr)
    p = xllamacpp.CommonParams()
    p.model.path = args.model
    p.hostnames = ["127.0.0.1"]
    p.port = args.port
    # One stream of cells per slot, n_ctx their sum: what llama-server does when told the number of slots, and
    # faster (16 streams of a 1.1B model: 25 tokens/s against 23 with one pool).
    p.kv_unified = args.kv_unified
    p.n_ctx = args.context_size * args.parallel
    p.n_parallel = args.parallel
    p.n_batch = p.n_ubatch = args.batch_size
    flash = xllamacpp.llama_flash_attn_type
    p.flash_attn_type = {
        "auto": flash.LLAMA_FLASH_ATTN_TYPE_AUTO,
        "on": flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": flash.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }[args.flash_attn]
    p.n_gpu_layers = 999 if args.gpu else 0
    p.cpuparams.n_threads = args.threads
    p.cpuparams_batch.n_threads = args.threads
    p.cache_ram_mib = args.cache_ram
    p.fit_params = False
    p.ui = False
    p.verbosity = 1
    server = xllamacpp.Server(p)
    print(f"ready {server.listening_address}", file=sys.stderr, flush=True)
    done = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: done.set())
    done.wait()


if __name__ == "__main__":
    main()
