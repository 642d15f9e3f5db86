"""Zero-shot image classifiers, from photographs and words to production."""

__version__ = "0.1.0"
