"""What a client asks of a bucket, over HTTP."""
