"""`make product NAME=…`: a product in small that runs, to be made into another; or what an existing one lacks."""
