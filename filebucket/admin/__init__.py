"""What a monitoring client sees: page, metrics, health."""
