"""The code of the engine process: `python -m server.worker.process.main`. The server does not import it."""
