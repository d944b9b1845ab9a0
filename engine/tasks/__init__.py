"""Engine work other than text generation: embeddings, prompt log-probabilities, saved slots.

`types` holds the tasks as they are exchanged between server and engine process, and imports nothing from the
engine. The rest runs in the engine thread, for `engine.engine`.
"""
