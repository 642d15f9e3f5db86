"""The class space: one vector per class, from words, descriptions or attributes."""
