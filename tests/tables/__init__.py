"""Writes the data files that are made from other packages; each is a program, and no test."""
