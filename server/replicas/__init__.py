"""One model served by engines on several machines, as deployments of Ray Serve (extra `ggserve[ray]`).

An ingress runs the whole HTTP server; in place of an engine process it has a `ReplicatedEngine`, which sends
each request to one of the replicas. Each replica owns an `EngineClient` and thus an engine process. Only
`router` and `application` import ray. `server.cli.ray` may import this package.
"""
