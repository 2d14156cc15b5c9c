"""What was found out with the environments, to be repeated with one command."""
