"""One second-order meta-step, timed beside every alternative in one run: ``python -m bench``."""
