"""MLPerf Training v5.0, the last round with BERT: its rules, its reference's convergence, its log."""
