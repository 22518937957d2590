"""HTTP/1.1 with streamed bodies, and listeners. Independent of buckets."""
