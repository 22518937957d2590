"""What tests, proofs and bench share."""
