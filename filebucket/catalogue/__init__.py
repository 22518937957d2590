"""The catalogue: records every push, besides the files themselves."""
