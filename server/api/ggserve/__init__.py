"""ggserve's own routes: health, metrics, plan, running requests, the page."""
