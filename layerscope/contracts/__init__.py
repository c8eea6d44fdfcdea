"""What others build on: an AsyncAPI document of the events, and an OpenAPI document of `query`, both made from the code."""
