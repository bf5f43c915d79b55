"""What a backend's author inherits, and what tests of modelserve and of its users are made of.

    conformance   the suite that every backend passes: one fixture, a `Place`
    memory        a backend in this process, with switches for faults
    models        small real bundles, made without a framework
    plugin        an installed plug-in as two text files
    strategies    hypothesis strategies for signatures and tensors

Needs pytest (conformance) and hypothesis (strategies), which modelserve itself does not.
"""
