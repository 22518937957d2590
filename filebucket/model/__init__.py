"""What a push, a bucket and a series are: values and pure rules."""
