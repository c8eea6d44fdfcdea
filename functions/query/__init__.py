"""Answers what people and programs ask about models, products and similar layers, over HTTP, from a cache.

func, routes, route_services, parameters, guard    the HTTP interface, and what all routes share
answers, search, kept_answers, answer_cache        what is answered about one model, about all, and how it is kept
similarity    which layers, models and classes are alike, and what that is worth
images        test images behind a count, one image, and models held against each other on the same ones
layers        the microscope: layers, channels, and what they respond to
rankings      the leaderboard of a dataset, and the versions of a model
page          HTML of all of these
why, status, replay, split, prediction             each by its prefix
"""
