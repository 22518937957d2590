"""HTTP/1.1 with streamed bodies, and where to listen. Knows no bucket."""
