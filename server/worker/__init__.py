"""An engine in a process of its own: the process, and the server's side of it."""
