"""The training job: model_fn, restore, evaluation, reports, the loop."""
