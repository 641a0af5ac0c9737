"""The checks of the built site, a file a concern; `.ci/check_site.py` runs them all."""
