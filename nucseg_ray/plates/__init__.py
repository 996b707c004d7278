"""Plates, wells, sites: what file names mean, and which images a run is to segment."""
