"""The parts that architectures are made of: layers, hyperparameters, tensor names.

Used by `engine.architectures` and by what loads a model.
"""
