"""Describes a model in a few sentences, in English and in Korean, from the numbers of its other products."""
