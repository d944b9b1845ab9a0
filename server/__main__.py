"""`python -m server` is `ggserve`."""

import sys

from server.cli.main import main

sys.exit(main())
