"""What trained models and their scores say: continual learning."""
