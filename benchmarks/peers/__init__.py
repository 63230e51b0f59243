"""Other implementations of BERT pretraining, each made to do whole training steps under benchmarks.worker."""
