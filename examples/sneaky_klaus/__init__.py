"""Sneaky Klaus: a gift exchange that reminds its participants by mail, completes and is purged.

A small application on jobd as a team would write it; README.md says how to run it. `jobd demo` runs the
same code with the days hurried.
"""
