"""What an engine does besides generating text: embeddings, prompt log-probabilities, saved slots.

`types` holds the tasks as they travel between server and engine process, and imports nothing of the engine.
The rest runs in the engine thread, for `engine.engine`.
"""
