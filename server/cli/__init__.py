"""The command line: `main`, and one module per command with `run(arguments) -> exit status`.

`main` imports a command when it is used. `command` and `console` hold what several commands
share. Only `server.__main__` may import it.
"""

import time

BEGAN = time.monotonic()  # when the command began: what it needs is imported after this
