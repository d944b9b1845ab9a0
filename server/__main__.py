"""`python -m server` is `ggserve`."""

import sys

from server.cli import main

sys.exit(main())
