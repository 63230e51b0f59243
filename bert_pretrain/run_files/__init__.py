"""What a run leaves in its folder, written and read by the same code: run.json, metrics.jsonl, results.json, events.

Only events.py, which nothing but training needs, imports TensorFlow.
"""
