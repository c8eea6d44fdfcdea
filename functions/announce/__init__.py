"""Turns the storage's notifications into events."""
