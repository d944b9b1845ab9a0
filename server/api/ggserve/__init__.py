"""ggserve's own routes: health, metrics, plan, running requests, the page."""

from __future__ import annotations

from server.api.common.api import Api
from server.api.ggserve import health, metrics, page, plan, requests

API = Api(routers=(health.router, metrics.router, requests.router, plan.router, page.router))
