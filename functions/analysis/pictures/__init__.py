"""Pictures that people send: a file in a form or a body, told by its bytes, to pixels as a dataset has them."""
