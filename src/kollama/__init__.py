"""Llama models in your Python process, with Korean text that is exactly right."""
