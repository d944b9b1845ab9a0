"""The engine process of a model, and the server's side of it.

`client.EngineClient` is the entry point, `engine.Engine` its interface. `requests` holds unfinished requests,
`supervision` keeps the process alive, `process` runs in it, and `messages` and `transport` connect the two.
It imports `engine` and `server.config` only. `server.generation`, `server.metrics`, `server.api` and
`server.app` may import it.
"""
