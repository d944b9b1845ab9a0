"""The engine process as the server sees it: start, watch, restart, stop. For `server.worker.client`."""
