"""What happens to files after they were pushed: verified, reindexed, pruned."""
