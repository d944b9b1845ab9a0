"""python -m server.health_check: exits with 1 and a line unless this container's server is healthy."""

from __future__ import annotations

import os
import ssl
import sys
import urllib.request


def main() -> None:
    has_tls = bool(os.environ.get("GGSERVE_TLS_CERT"))
    url = f"http{'s' if has_tls else ''}://127.0.0.1:{os.environ['GGSERVE_PORT']}/health"
    # A certificate is for the server's public names.
    context = ssl._create_unverified_context() if has_tls else None
    try:
        urllib.request.urlopen(url, timeout=4, context=context).close()
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main()
