"""What is put into the networks for a job and taken out again."""
