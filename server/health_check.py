"""`python -m server.health_check`: exits with 1 and one line of output unless this container's server is
healthy.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

TIMEOUT_S = 4


def _ask(connection: http.client.HTTPConnection) -> int:
    """The status of /health."""
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


def main() -> None:
    address = "127.0.0.1", int(os.environ["GGSERVE_PORT"])
    try:
        try:
            status = _ask(http.client.HTTPConnection(*address, timeout=TIMEOUT_S))
        except (ConnectionResetError, http.client.BadStatusLine):
            # It speaks TLS, which the environment does not tell: a flag or a file may have set it up.
            # A certificate is for the server's public names.
            context = ssl._create_unverified_context()
            status = _ask(http.client.HTTPSConnection(*address, timeout=TIMEOUT_S, context=context))
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"/health of port {address[1]}: {error or type(error).__name__}")
    if status != http.HTTPStatus.OK:
        sys.exit(f"/health of port {address[1]}: status {status}")


if __name__ == "__main__":
    main()
