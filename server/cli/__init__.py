"""The commands of `ggserve`, one module each with `run(arguments) -> exit status`; imported when used."""
