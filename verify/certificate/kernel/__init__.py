"""The part of certificates that proves: it becomes one file, recheck.py, which needs python-flint alone.

Everything that a certificate says is found by calling these modules, and found again by the file that is made of them
(`verify.certificate.alone`). So they import python-flint, the standard library and each other, and nothing else.
"""
