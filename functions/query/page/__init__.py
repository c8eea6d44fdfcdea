"""The pages: what a person sees of a model, in HTML that needs neither a build step nor JavaScript."""
