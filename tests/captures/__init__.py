"""Captures of the kernel's own TCP, each with the kernel's account of the states beside it; record.py makes them."""
