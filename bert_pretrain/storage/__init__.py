"""Files of a remote storage (s3://, gs://, hdfs:// and others), through fsspec, which is imported for a URL only."""
