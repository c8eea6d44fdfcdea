"""Answers what people and programs ask about models, products and similar layers, over HTTP, from a cache."""
