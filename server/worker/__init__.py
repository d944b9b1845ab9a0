"""The engine process of a model, and the server's side of it.

`client.EngineClient` is the way in: it admits requests and tasks (`in_flight`), keeps the process alive
(`supervisor`, `child`, `recovery`) and hands out streams. `process` runs in the child; `messages` and
`transport` connect the two. It imports `engine` and `server.config` only. `server.generation`,
`server.metrics`, `server.api` and `server.app` may import it.
"""
